"""Text tables (CSV) as spreadsheets write them: cells can be replaced while everything else stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bundle.geometry.spaces import WORDS
from bundle.system.text import BYTE_ORDER_MARK, decode

DELIMITERS = (";", "\t", ",")
BLANKS = " \t\r\n"  # characters around the content of a cell
# Excel's line that gives the delimiter; it is not a row of the table.
ANNOUNCED = re.compile(r'"?sep=(.)"?[;,\t]*(?=[\r\n]|\Z)', re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')
COMMENT = re.compile(r"(?:#|//|%)+\s*")
"""How a line begins that is a comment, as those of NumPy, MATLAB and others."""
FROM_1 = re.compile(r"\b(?:1|one)[- ]based|matlab", re.IGNORECASE)
"""How a comment says that voxels are counted from 1."""
IN_UNIT = re.compile(r"(.*?)\s*(?:[\[(](.*?)[\])]|(?:[_\s/]|\sin\s)\s*([^\W_]+))")
"""The name of a column with what it is in: ``x (mm)``, ``x_mm``, ``x / mm``."""
Row = tuple[list[str], str]  # cells as they are written, end of the line


@dataclass(frozen=True)
class Header:
    """The row of a table that names its columns.

    Attributes:
        row: its index.
        names: names of the columns, in small letters.
        units: for each column, the words that its name ends with and that say what it is in (``spaces.WORDS``).
    """

    row: int
    names: list[str]
    units: list[list[str]]


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
        mark = re.escape(delimiter)
        plain = rf"[^{mark}\r\n]*"
        quoted = rf'(?:(?!{mark})[^\S\r\n])*"(?:[^"]|"")*"'
        part = re.compile(rf"({quoted}{plain}|{plain})({mark}|\r\n|\n|\r|\Z)")
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

    def is_comment(self, number: int, columns: Sequence[int] = ()) -> bool:
        """Whether a row begins as a comment does.

        Args:
            number: index of the row.
            columns: columns of numbers.

        Raises:
            ValueError: when it has numbers in all of them: it may have been taken out, or be called ``#1``.
        """
        cells = self.rows[number][0]
        if not COMMENT.match(value_of(cells[0])):
            return False
        if columns and max(columns) < len(cells) and all(_is_number(cells[column]) for column in columns):
            line = self.line(number)[:60]
            raise ValueError(f"row {number + 1} is {line!r}, a comment or a row; delete it, or give it another name")
        return True

    def check_header(self, header: Header, names: Sequence[str], rows: Sequence[int]) -> None:
        """Refuse a header that does not say which column is meant: names that stand twice, numbers beyond it.

        Such numbers may be decimals whose mark is the delimiter.
        """
        width = len(header.names)
        twice = [name for name in names if header.names.count(name) > 1]
        if twice:
            raise ValueError(f"{header.names.count(twice[0])} of its columns are called {twice[0]}, expected one")
        for number in rows:
            cells = [value_of(cell) for cell in self.rows[number][0]]
            if any(cell.isdigit() for cell in cells[width:]):
                found = f"row {number + 1} has {len(cells)} cells and the header {width}"
                advice = "name every column, and write decimals with a point or cells between semicolons"
                raise ValueError(f"{found}; {advice}")

    def header(self, known: Iterable[set[str]]) -> Header:
        """The first row that is not empty and no comment, or the last comment above it that names known columns.

        Args:
            known: names of columns that belong together, in small letters.
        """
        filled = self.filled()
        first = next((place for place, number in enumerate(filled) if not self.is_comment(number)), len(filled))
        found = [self._named(number) for number in filled[: first + 1]]
        by_name = (header for header in reversed(found) if any(names <= set(header.names) for names in known))
        return next(by_name, found[-1] if found else Header(len(self.rows), [], []))

    def _named(self, number: int) -> Header:
        """A row as a header."""
        cells = [COMMENT.sub("", value_of(cell), count=1).lower() for cell in self.rows[number][0]]
        parts = [part_of_name(cell) for cell in cells]
        return Header(number, [name for name, _ in parts], [words for _, words in parts])

    def line(self, number: int) -> str:
        """A row as written."""
        return self.delimiter.join(self.rows[number][0])


def delimiter_of(text: str) -> str:
    """Delimiter of a table: comma, semicolon or tab.

    It is the one that Excel's ``sep=`` line names, else the one that splits the first line that is no comment into the
    most numbers or, in a header, the most cells.
    """
    lines = (line for line in text.splitlines() if line.strip(BLANKS))
    first = next((line.strip(BLANKS) for line in lines if not COMMENT.match(line.strip(BLANKS + '"'))), "")
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


def part_of_name(cell: str) -> tuple[str, list[str]]:
    """The name of a column, without the unit, and the words of the unit."""
    found = IN_UNIT.fullmatch(cell)
    words = words_of(found[2] or found[3]) if found else []
    return (found[1], words) if found and words and WORDS.issuperset(words) else (cell, [])


def words_of(text: str) -> list[str]:
    """Words in small letters."""
    return re.findall(r"[^\W_]+", text.lower())


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
    text = value_of(cell).replace("\u2212", "-")  # the minus of word processors
    if "_" in text:  # which Python's own numbers may have
        raise ValueError(f"{text!r} is not a number")
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def replace_numbers(cells: list[str], columns: Sequence[int], values: Sequence[float], mark: str = ".") -> None:
    """Replace numbers by others, to the last digit; the blanks and quotes around them stay."""
    for column, value in zip(columns, values, strict=True):
        number = repr(float(value)).replace(".", mark)
        cells[column] = cells[column].replace(cells[column].strip(BLANKS).strip('"').strip(), number)
