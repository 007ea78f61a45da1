"""Points in CSV files: read, and replaced with everything else left as it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.geometry import transform_points

VOXELS = {("i", "j", "k"): (0, 1, 2), ("row", "col"): (1, 0), ("i", "j"): (0, 1)}
"""Columns that hold voxels, and the axis of the image each counts along: the rows of a picture are its second."""
MILLIMETRES = {("x", "y", "z"): (0, 1, 2), ("x", "y"): (0, 1)}
AXES = {**VOXELS, **MILLIMETRES}
OUTSIDE = "outside"
BYTE_ORDER_MARK = "\ufeff"
BLANKS = " \t\r\n" + BYTE_ORDER_MARK  # around what a cell says

# A cell as it is written, quotes and blanks included, and what ends it.
CELL = re.compile(r'([^\S\r\n]*"(?:[^"]|"")*"[^,\r\n]*|[^,\r\n]*)(,|\r\n|\n|\r|\Z)')
Row = tuple[list[str], str]  # cells as they are written, end of the line


def split_rows(content: bytes) -> list[Row]:
    """Cells of a table with commas; together with the ends of the lines they are the text again.

    Raises:
        ValueError: when it is not text.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in UTF-8 (byte {error.start}), expected a table with commas") from error
    rows: list[Row] = []
    cells: list[str] = []
    for cell, end in CELL.findall(text):  # an empty row at the end of the text changes nothing
        cells.append(cell)
        if end != ",":
            rows.append((cells, end))
            cells = []
    return rows


def join_rows(rows: Sequence[Row]) -> bytes:
    """Table of such cells."""
    return "".join(",".join(cells) + end for cells, end in rows).encode("utf-8")


def value_of(cell: str) -> str:
    """What a cell says, without quotes and blanks around it."""
    text = cell.strip(BLANKS)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"').strip() if quoted else text


def replace_numbers(cells: list[str], columns: Sequence[int], values: np.ndarray) -> None:
    """Put numbers in the place of others, to the last digit; the blanks around them stay."""
    for column, value in zip(columns, values, strict=True):
        cells[column] = cells[column].replace(cells[column].strip(BLANKS), repr(float(value)))


@dataclass(frozen=True)
class Columns:
    """Where the points of a CSV are.

    Attributes:
        names: of the columns, as in ``AXES``.
        numbers: of the columns, in this order.
        header: whether the first row names them.
        prefix: before the names, for one of the two images of a pair.
        rows: the rows that hold a point, counted from 0.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    header: bool
    prefix: str
    rows: tuple[int, ...]


def find_columns(rows: Sequence[Row], side: str | None, planar: bool) -> Columns:
    """Find the points of a CSV, by its header or, without one, as voxels in the first columns.

    Args:
        rows: of the file.
        side: ``fixed`` or ``moving`` in a file for both images of a pair, whose columns have it before their names.
        planar: whether the image is a single slice, whose points may lack the third coordinate.

    Raises:
        ValueError: when there is no such column, or no row.
    """
    filled = tuple(number for number, (cells, _) in enumerate(rows) if any(map(value_of, cells)))
    prefix = f"{side}_" if side else ""
    first = [value_of(cell) for cell in rows[filled[0]][0]] if filled else []
    found: Mapping[str, int] = {
        name.removeprefix(prefix): number for number, name in enumerate(first) if name.startswith(prefix)
    }
    known = [names for names in AXES if planar or len(names) == 3]
    names = next((names for names in known if set(names) <= set(found)), None)
    if names is not None and len(filled) > 1:
        return Columns(names, tuple(found[name] for name in names), True, prefix, filled[1:])
    if names is not None or side or not filled:
        raise ValueError(_expected(prefix, planar) + "; found no such row")
    names = ("i", "j") if planar and len(first) == 2 else ("i", "j", "k")
    return Columns(names, tuple(range(len(names))), False, prefix, filled)


def _expected(prefix: str, planar: bool) -> str:
    known = [names for names in AXES if planar or len(names) == 3]
    headers = ", ".join(",".join(prefix + name for name in names) for names in known)
    return f"expected numbers in every row below one of the headers {headers}"


def read_csv(content: bytes, affine: np.ndarray | None, side: str | None, planar: bool) -> np.ndarray:
    """Points of a CSV.

    Args:
        content: of the file.
        affine: ``(4, 4)`` voxel-to-world of the image they belong to; None where the file has mm in three columns.
        side: as in :func:`find_columns`.
        planar: as there.

    Returns:
        ``(n, 3)``, mm, RAS.

    Raises:
        ValueError: when it is not such a table, or the image is needed.
    """
    rows = split_rows(content)
    columns = find_columns(rows, side, planar)
    values = np.empty((len(columns.rows), len(columns.names)))
    for point, number in enumerate(columns.rows):
        cells = rows[number][0]
        try:
            values[point] = [float(value_of(cells[column])) for column in columns.numbers]
        except (ValueError, IndexError) as error:
            line = ",".join(cells)[:60]
            raise ValueError(f"{_expected(columns.prefix, planar)}; row {number + 1} is {line!r}") from error
    matrix = _image(affine, columns)
    millimetres = columns.names in MILLIMETRES
    points = np.tile(matrix[:3, 3] if millimetres else np.zeros(3), (len(values), 1))
    points[:, AXES[columns.names]] = values
    return points if millimetres else transform_points(matrix, points)


def _image(affine: np.ndarray | None, columns: Columns) -> np.ndarray:
    """Voxel-to-world of the image; of no image where only mm in three columns are asked for."""
    if affine is None and columns.names != ("x", "y", "z"):
        unit = "mm in the plane" if columns.names in MILLIMETRES else "voxels"
        raise ValueError(f"its columns {','.join(columns.names)} are {unit}; give the image that they belong to")
    return np.eye(4) if affine is None else affine


def replace_csv(
    content: bytes,
    points: np.ndarray,
    outside: np.ndarray | None,
    affine: np.ndarray | None,
    side: str | None,
    planar: bool,
) -> bytes:
    """CSV with other points, in the columns and the unit it has.

    Args:
        content: of the file that was read.
        points: ``(n, 3)``, mm, RAS.
        outside: ``(n,)``, whether each lay outside the volume: 1 or 0 in the column ``outside``; None: no such column.
            A file without a header gets one then.
        affine: as in :func:`read_csv`, of the image that the points belong to now.
        side: as there.
        planar: as there.

    Returns:
        Content of the new file.
    """
    rows = [(list(cells), end) for cells, end in split_rows(content)]
    columns = find_columns(rows, side, planar)
    values = points
    if columns.names in VOXELS:
        # Rounding takes the noise of the affine and its inverse off whole voxels.
        values = np.round(transform_points(np.linalg.inv(_image(affine, columns)), points), 9)
    for number, value in zip(columns.rows, values, strict=True):
        replace_numbers(rows[number][0], columns.numbers, value[list(AXES[columns.names])])
    if outside is not None:
        _flag(rows, columns, outside)
    return join_rows(rows)


def _flag(rows: list[Row], columns: Columns, outside: np.ndarray) -> None:
    """Fill the column ``outside``, the last one unless there is one."""
    width = max(len(rows[number][0]) for number in columns.rows)
    if columns.header:
        first = next(number for number, (cells, _) in enumerate(rows) if any(map(value_of, cells)))
        header = rows[first][0]
        flagged = list(columns.rows)
    else:
        # Without names a column more would turn the points of a slice into those of a volume.
        header = [*columns.names, *[""] * (width - len(columns.names))]
        rows[0][0][0] = rows[0][0][0].removeprefix(BYTE_ORDER_MARK)
        rows.insert(0, (header, rows[columns.rows[0]][1] or "\n"))
        flagged = [number + 1 for number in columns.rows]
    name = columns.prefix + OUTSIDE
    names = [value_of(cell) for cell in header]
    column = names.index(name) if name in names else max(width, len(header))
    header += [""] * (column + 1 - len(header))
    header[column] = name
    for number, flag in zip(flagged, outside, strict=True):
        cells = rows[number][0]
        cells += [""] * (column + 1 - len(cells))
        cells[column] = str(int(flag))
