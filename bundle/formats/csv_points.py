"""Points in CSV files: reading them, and replacing them with everything else left as written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.formats.tables import Row, Table, number_of, replace_numbers, value_of
from bundle.geometry import transform_points
from bundle.geometry.correspondence import NamedPoints
from bundle.geometry.spaces import swap_space

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
OUTSIDE = "outside"


@dataclass(frozen=True)
class Columns:
    """Where the points of a CSV are.

    Attributes:
        names: names of the columns, as in ``AXES``.
        numbers: indices of the columns, in this order.
        header: whether the first row names them.
        prefix: prefix of the names, for one of the two images of a pair.
        rows: the rows that hold a point, counted from 0.
        unplaced: number of rows of a point without a position.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    header: bool
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
    first = _header(table, filled)
    found: Mapping[str, int] = {
        name.removeprefix(prefix): number for number, name in enumerate(first) if name.startswith(prefix)
    }
    known = [names for names in AXES if planar or len(names) == 3]
    there = [names for names in known if set(names) <= set(found)]
    names = there[0] if there else None
    if other := next((names for names in there[1:] if not set(names) <= set(there[0])), None):
        both = " and ".join(",".join(prefix + name for name in names) for names in (there[0], other))
        raise ValueError(f"its columns {both} both give the place of a point, each in its own unit; keep one of them")
    if names is not None and len(filled) > 1:
        _check_header(table, filled, [prefix + name for name in names])
        rows = [number for number in filled[1:] if not (names in SLICER and _undefined(table, number, found))]
        columns = tuple(found[name] for name in names)
        return Columns(names, columns, True, prefix, tuple(rows), len(filled) - 1 - len(rows))
    if names is not None or side or not filled:
        raise ValueError(_expected(prefix, planar) + "; found no such row")
    names = ("i", "j") if planar and len(first) == 2 else ("i", "j", "k")
    if len(filled) > 1 and len(first) > len(names) and _counts(table, filled):
        raise ValueError(f"the first of its {len(first)} columns counts the rows; {_expected(prefix, planar)}")
    return Columns(names, tuple(range(len(names))), False, prefix, filled)


def _header(table: Table, filled: Sequence[int]) -> list[str]:
    """Cells of the first row that is not empty, in small letters."""
    return [value_of(cell).lower() for number in filled[:1] for cell in table.rows[number][0]]


def _undefined(table: Table, number: int, found: Mapping[str, int]) -> bool:
    """Whether a row of 3D Slicer says that its point has no position."""
    column = found.get(DEFINED, -1)
    return column >= 0 and [value_of(cell) for cell in table.rows[number][0][column : column + 1]] == ["0"]


def _check_header(table: Table, filled: Sequence[int], names: Sequence[str]) -> None:
    """Refuse a header that does not say which column is meant: names that stand twice, rows with numbers beyond it.

    Such numbers may be decimals whose mark is the delimiter.
    """
    header = _header(table, filled)
    others = ([value_of(cell) for cell in table.rows[number][0]] for number in filled[1:])
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise ValueError(f"{header.count(twice[0])} of its columns are called {twice[0]}, expected one")
    for number, cells in zip(filled[1:], others, strict=True):
        if any(cell.isdigit() for cell in cells[len(header) :]):
            found = f"row {number + 1} has {len(cells)} cells and the header {len(header)}"
            raise ValueError(f"{found}; name every column, and write decimals with a point or cells between semicolons")


def _counts(table: Table, filled: Sequence[int]) -> bool:
    """Whether the first cells of the rows are 0, 1, 2, ... or 1, 2, 3, ..."""
    found = [value_of(table.rows[number][0][0]) for number in filled]
    return any(found == [str(start + place) for place in range(len(found))] for start in (0, 1))


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
    for point, number in enumerate(columns.rows):
        try:
            values[point] = [number_of(table.rows[number][0][column]) for column in columns.numbers]
        except (ValueError, IndexError) as error:
            line = table.line(number)[:60]
            raise ValueError(f"{_expected(columns.prefix, planar)}; row {number + 1} is {line!r}") from error
    matrix = _image(affine, columns)
    voxels = columns.names in VOXELS
    points = np.tile(np.zeros(3) if voxels else matrix[:3, 3], (len(values), 1))
    points[:, AXES[columns.names]] = values
    world = transform_points(matrix, points) if voxels else swap_space(points, columns.space)
    header = _header(table, table.filled()) if columns.header else []
    return NamedPoints(world, _names(table, columns, header), columns.unplaced, DOUBT if set(header) >= ANTS else "")


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
        _flag(table.rows, columns, outside)
    return table.content()


def _flag(rows: list[Row], columns: Columns, outside: np.ndarray) -> None:
    """Fill the column ``outside``, added at the end if there is none."""
    first = columns.rows[0]
    width = max(len(rows[number][0]) for number in columns.rows)
    flagged = [rows[number][0] for number in columns.rows]
    if columns.header:
        header = next(cells for cells, _ in reversed(rows[:first]) if any(map(value_of, cells)))
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
