"""Text tables (CSV) as spreadsheets write them: cells can be replaced while everything else stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bundle.system.text import BYTE_ORDER_MARK, decode

DELIMITERS = (";", "\t", ",")
BLANKS = " \t\r\n"  # characters around the content of a cell
# Excel's line that gives the delimiter; it is not a row of the table.
ANNOUNCED = re.compile(r'"?sep=(.)"?[;,\t]*(?=[\r\n]|\Z)', re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')
Row = tuple[list[str], str]  # cells as they are written, end of the line


@dataclass(frozen=True)
class Table:
    """Rows of a table with what is needed to write them again.

    Attributes:
        rows: cells as written, and line ends; together with the delimiters they give the text again.
        delimiter: delimiter between cells.
        encoding: encoding of the file.
        mark: the byte order mark, or empty.
    """

    rows: list[Row]
    delimiter: str
    encoding: str
    mark: str

    @classmethod
    def read(cls, content: bytes, delimiter: str | None = None) -> Table:
        """Table of a file.

        Args:
            content: content of the file.
            delimiter: delimiter between cells; None: found from the first line.

        Raises:
            ValueError: when it is not text.
        """
        marked, encoding = decode(content)
        text = marked.removeprefix(BYTE_ORDER_MARK)
        delimiter = delimiter or delimiter_of(text)
        rows: list[Row] = []
        cells: list[str] = []
        # A cell as it is written, quotes and blanks included, and what ends it.
        plain = rf"[^{delimiter}\r\n]*"
        quoted = rf'(?:(?!{delimiter})[^\S\r\n])*"(?:[^"]|"")*"'
        part = re.compile(rf"({quoted}{plain}|{plain})({delimiter}|\r\n|\n|\r|\Z)")
        for cell, end in part.findall(text):  # an empty row at the end of the text changes nothing
            cells.append(cell)
            if end != delimiter:
                rows.append((cells, end))
                cells = []
        return cls(rows, delimiter, encoding, marked[: len(marked) - len(text)])

    def copy(self) -> Table:
        """A copy whose cells can be replaced."""
        return replace(self, rows=[(list(cells), end) for cells, end in self.rows])

    def content(self) -> bytes:
        """Content of the table's file."""
        return (self.mark + "".join(self.delimiter.join(cells) + end for cells, end in self.rows)).encode(self.encoding)

    def filled(self) -> tuple[int, ...]:
        """Indices of the rows that are not empty."""
        announced = bool(self.rows) and ANNOUNCED.match(self.line(0).strip(BLANKS)) is not None
        return tuple(
            n for n, (cells, _) in enumerate(self.rows) if any(map(value_of, cells)) and not (announced and n == 0)
        )

    def line(self, number: int) -> str:
        """A row as written."""
        return self.delimiter.join(self.rows[number][0])


def delimiter_of(text: str) -> str:
    """Delimiter of a table: comma, semicolon or tab.

    It is the one that Excel's ``sep=`` line names, else the one that splits the first line into the most numbers or, in
    a header, the most cells.
    """
    first = next(iter(text.lstrip(BLANKS).splitlines()), "")
    announced = ANNOUNCED.match(first)
    if announced:
        return announced[1]
    cells = {mark: _cells(first, mark) for mark in DELIMITERS if mark in QUOTED.sub("", first)}
    numbers = {mark: sum(map(_is_number, found)) for mark, found in cells.items()}
    return max(cells, key=lambda mark: (numbers[mark], len(cells[mark])), default=",")


def _cells(line: str, mark: str) -> list[str]:
    return QUOTED.sub(lambda quoted: quoted[0].replace(mark, ""), line).split(mark)


def _is_number(cell: str) -> bool:
    try:
        number_of(cell)
    except ValueError:
        return False
    return True


def value_of(cell: str) -> str:
    """Content of a cell, without quotes and blanks around it."""
    text = cell.strip(BLANKS)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"').strip() if quoted else text


def number_of(cell: str) -> float:
    """The number in a cell, whose decimal mark may be a comma.

    Raises:
        ValueError: when it is not a number.
    """
    text = value_of(cell)
    if "_" in text:  # which Python's own numbers may have
        raise ValueError(f"{text!r} is not a number")
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def replace_numbers(cells: list[str], columns: Sequence[int], values: Sequence[float], mark: str = ".") -> None:
    """Replace numbers by others, to the last digit; the blanks and quotes around them stay."""
    for column, value in zip(columns, values, strict=True):
        number = repr(float(value)).replace(".", mark)
        cells[column] = cells[column].replace(cells[column].strip(BLANKS).strip('"').strip(), number)
