"""Points in CSV files: reading them, and replacing them with everything else left as written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.formats.tables import FROM_1, Header, Table, number_of, replace_numbers, value_of, words_of
from bundle.geometry import transform_points
from bundle.geometry.correspondence import NamedPoints, count_rows
from bundle.geometry.spaces import MILLIMETRE, OTHER_LENGTHS, VOXEL, swap_space

Axes = dict[tuple[str, ...], tuple[int, ...]]
VOXELS: Axes = {("i", "j", "k"): (0, 1, 2), ("row", "col"): (1, 0), ("i", "j"): (0, 1)}
"""Columns that hold voxels, and the image axis of each: the rows of a picture are its second axis."""
MILLIMETRES: Axes = {("x", "y", "z"): (0, 1, 2), ("x", "y"): (0, 1)}
SLICER: Axes = {("r", "a", "s"): (0, 1, 2), ("l", "p", "s"): (0, 1, 2)}
"""Columns of mm that say their space by its letters, as 3D Slicer writes tables of control points."""
AXES = {**VOXELS, **MILLIMETRES, **SLICER}
DEFINED = "defined"
"""Column of 3D Slicer that is 0 for a point without a position."""
ANTS = {"x", "y", "z", "t"}
"""Columns of the points of ANTs, which are LPS."""
DOUBT = "its columns x,y,z,t are those of ANTs, whose points are LPS; they are read as RAS: if so, negate x and y"
NAMES = ("name", "landmark", "label", "id")
"""Columns that name points, in files for both images too."""
UNITS = ("unit", "units", "space")
"""Columns that say what the numbers of each row are in."""
OUTSIDE = "outside"
THOUSANDS = re.compile(r"\D?[1-9]\d{0,2}(?:,\d{3})+")  # as spreadsheets show them; decimals look alike
ELSEWHERE = (VOXEL | OTHER_LENGTHS | {"lps"}) - {"in", "m"}
"""Words of comments that do not go with mm in RAS."""


@dataclass(frozen=True)
class Columns:
    """Where the points of a CSV are.

    Attributes:
        names: names of the columns, as in ``AXES``.
        numbers: indices of the columns, in this order.
        header: the row that names them; None without one.
        prefix: prefix of the names, for one of the two images of a pair.
        rows: the rows that hold a point, counted from 0.
        unplaced: number of rows of a point without a position.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    header: Header | None
    prefix: str
    rows: tuple[int, ...]
    unplaced: int = 0

    @property
    def space(self) -> str:
        """Space of the millimetres."""
        return "LPS" if self.names == ("l", "p", "s") else "RAS"


def find_columns(table: Table, side: str | None, planar: bool) -> Columns:
    """Find the points of a CSV by its header, in any letters; without one, they are voxels in the first columns.

    Args:
        table: table of the file.
        side: ``fixed`` or ``moving``, the prefix of the column names in a file for both images of a pair.
        planar: whether the image is a single slice, whose points may lack the third coordinate.

    Raises:
        ValueError: when there is no such column, or no row.
    """
    filled = table.filled()
    prefix = f"{side}_" if side else ""
    known = [names for names in AXES if planar or len(names) == 3]
    header = table.header([{prefix + name for name in names} for names in known])
    found: Mapping[str, int] = {
        name.removeprefix(prefix): number for number, name in enumerate(header.names) if name.startswith(prefix)
    }
    there = [names for names in known if set(names) <= set(found)]
    names = there[0] if there else None
    if other := next((names for names in there[1:] if not set(names) <= set(there[0])), None):
        both = " and ".join(",".join(prefix + name for name in names) for names in (there[0], other))
        raise ValueError(f"its columns {both} both give the place of a point, each in its own unit; keep one of them")
    numbers = tuple(found[name] for name in names or ())
    below = [number for number in filled if number > header.row and not table.is_comment(number, numbers)]
    if names is not None and below:
        table.check_header(header, [prefix + name for name in names], below)
        _check_units(table, below, header, names, numbers)
        rows = [number for number in below if not (names in SLICER and _undefined(table, number, found))]
        return Columns(names, numbers, header, prefix, tuple(rows), len(below) - len(rows))
    if names is not None or side or not filled:
        raise ValueError(_expected(prefix, planar) + "; found no such row")
    if comment := next((table.line(number)[:60] for number in filled if table.is_comment(number)), ""):
        raise ValueError(f"{_expected(prefix, planar)}; it has none, and the comment {comment!r} is not read")
    width = len(header.names)
    if width == 1:
        line = f"{table.line(header.row)[:60]!r}, a single cell; put commas, semicolons or tabs between cells"
        raise ValueError(f"{_expected(prefix, planar)}; row {header.row + 1} is {line}")
    names = ("i", "j") if planar and width == 2 else ("i", "j", "k")
    first = [value_of(table.rows[number][0][0]) for number in filled]
    if len(filled) > 1 and width > (2 if planar else 3) and count_rows(first):
        raise ValueError(f"the first of its {width} columns counts the rows; {_expected(prefix, planar)}")
    if header.names == list(map(str, range(width))) and len(filled) > 1:
        raise ValueError(f"its first row, {table.line(filled[0])}, counts the columns; {_expected(prefix, planar)}")
    return Columns(names, tuple(range(len(names))), None, prefix, filled)


def _undefined(table: Table, number: int, found: Mapping[str, int]) -> bool:
    """Whether a row of 3D Slicer says that its point has no position."""
    column = found.get(DEFINED, -1)
    return column >= 0 and [value_of(cell) for cell in table.rows[number][0][column : column + 1]] == ["0"]


def _check_units(
    table: Table, rows: Sequence[int], header: Header, names: tuple[str, ...], columns: Sequence[int]
) -> None:
    """Refuse numbers that are not in the unit of their columns, by the words of the header or of a column of units."""
    fitting = VOXEL if names in VOXELS else MILLIMETRE | {"lps" if names == ("l", "p", "s") else "ras"}
    said = [(f"column {names[place]}", header.units[column]) for place, column in enumerate(columns)]
    for column in (header.names.index(name) for name in UNITS if name in header.names):
        said += [(f"row {row + 1}", words_of("".join(table.rows[row][0][column : column + 1]))) for row in rows]
    for where, words in said:
        if others := [word for word in words if word not in fitting]:
            what = "voxels" if names in VOXELS else "mm"
            advice = "call voxels i,j,k, counted from 0" if VOXEL.intersection(others) else "convert them"
            advice = "call mm in LPS l,p,s and in RAS x,y,z" if {"lps", "ras"}.intersection(others) else advice
            raise ValueError(f"the numbers of its {where} are in {others[0]}, expected {what}; {advice}")


def _expected(prefix: str, planar: bool) -> str:
    known = [names for names in AXES if planar or len(names) == 3]
    headers = ", ".join(",".join(prefix + name for name in names) for names in known)
    return f"expected numbers in every row below one of the headers {headers}"


def read_csv(content: bytes, affine: np.ndarray | None, side: str | None, planar: bool) -> NamedPoints:
    """Points of a CSV, with the names of the column that tells most of them apart.

    Args:
        content: content of the file.
        affine: ``(4, 4)`` voxel-to-world of the image they belong to; None if the file has mm in three columns.
        side: as in :func:`find_columns`.
        planar: as there.

    Raises:
        ValueError: when it is no such table, or the image is needed but not given.
    """
    table = Table.read(content)
    columns = find_columns(table, side, planar)
    values = np.empty((len(columns.rows), len(columns.names)))
    cells: list[str] = []
    for point, number in enumerate(columns.rows):
        try:
            values[point] = [number_of(table.rows[number][0][column]) for column in columns.numbers]
        except (ValueError, IndexError) as error:
            line = table.line(number)[:60]
            raise ValueError(f"{_expected(columns.prefix, planar)}; row {number + 1} is {line!r}") from error
        cells += [value_of(table.rows[number][0][column]) for column in columns.numbers]
    commas = [cell for cell in cells if "," in cell]
    if commas and any("." in cell for cell in cells):
        raise ValueError("some of its numbers have a decimal point and some a comma; write all with a point")
    if commas and table.delimiter == "," and all(map(THOUSANDS.fullmatch, commas)):
        raise ValueError(f"{commas[0]} may be more than a thousand, or a fraction; write numbers without commas")
    matrix = _image(affine, columns)
    voxels = columns.names in VOXELS
    points = np.tile(np.zeros(3) if voxels else matrix[:3, 3], (len(values), 1))
    points[:, AXES[columns.names]] = values
    world = transform_points(matrix, points) if voxels else swap_space(points, columns.space)
    header = columns.header.names if columns.header else []
    return NamedPoints(world, _names(table, columns, header), columns.unplaced, _doubt(table, columns, header))


def _doubt(table: Table, columns: Columns, header: Sequence[str]) -> str:
    """A line about points that may not be what their columns say, or an empty one."""
    if columns.names in SLICER:
        return ""
    read = "voxels counted from 0" if columns.names in VOXELS else "mm in RAS"
    if read == "mm in RAS" and set(header) >= ANTS:
        return DOUBT
    comments = (table.line(number) for number in table.filled() if table.is_comment(number))
    said = FROM_1.search if columns.names in VOXELS else lambda text: ELSEWHERE.intersection(words_of(text))
    text = next((text[:60] for text in comments if said(text)), "")
    return f"its points are read as {read}, as its columns say; see its comment {text!r}" if text else ""


def _names(table: Table, columns: Columns, header: Sequence[str]) -> list[str]:
    """Names of the points, from the column that tells most of them apart; empty where there are none."""
    rows = [[value_of(cell) for cell in table.rows[number][0]] + [""] * len(header) for number in columns.rows]
    named = [[row[header.index(name)] for row in rows] for name in NAMES if name in header]
    return max(named, key=lambda names: len(set(names)), default=[""] * len(rows))


def _image(affine: np.ndarray | None, columns: Columns) -> np.ndarray:
    """Voxel-to-world of the image; no image is needed for mm in three columns."""
    if affine is None and (columns.names in VOXELS or len(columns.names) < 3):
        unit = "voxels" if columns.names in VOXELS else "mm in the plane"
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
    """CSV with other points, in the same columns and unit.

    Args:
        content: content of the file that was read.
        points: ``(n, 3)``, mm, RAS.
        outside: ``(n,)``, whether each lay outside the volume, written as 1 or 0 in the column ``outside``; a file
            without a header gets one. None writes no such column.
        affine: as in :func:`read_csv`, of the image that the points belong to now.
        side: as there.
        planar: as there.

    Returns:
        Content of the new file.
    """
    table = Table.read(content).copy()
    columns = find_columns(table, side, planar)
    values = swap_space(points, columns.space)
    if columns.names in VOXELS:
        # Rounding removes the noise of the affine and its inverse from whole voxels.
        values = np.round(transform_points(np.linalg.inv(_image(affine, columns)), points), 9)
    rows = [table.rows[number][0] for number in columns.rows]
    mark = "," if any("," in value_of(cells[column]) for cells in rows for column in columns.numbers) else "."
    for cells, value in zip(rows, values, strict=True):
        replace_numbers(cells, columns.numbers, value[list(AXES[columns.names])], mark)
    if outside is not None:
        _flag(table, columns, outside)
    return table.content()


def _flag(table: Table, columns: Columns, outside: np.ndarray) -> None:
    """Fill the column ``outside``, added at the end if there is none."""
    rows = table.rows
    first = columns.rows[0]
    width = max(len(rows[number][0]) for number in columns.rows)
    flagged = [rows[number][0] for number in columns.rows]
    if columns.header:
        header = rows[columns.header.row][0]
    else:
        # Without names, one more column would turn the points of a slice into those of a volume.
        header = [*columns.names, *[""] * (width - len(columns.names))]
        rows.insert(first, (header, rows[first][1] or "\n"))
    name = columns.prefix + OUTSIDE
    names = [value_of(cell) for cell in header]
    column = names.index(name) if name in names else max(width, len(header))
    header += [""] * (column + 1 - len(header))
    header[column] = name
    for cells, flag in zip(flagged, outside, strict=True):
        cells += [""] * (column + 1 - len(cells))
        cells[column] = str(int(flag))
