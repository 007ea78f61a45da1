"""Files of points and surfaces: read as points, and written with other points and everything else unchanged.

Landmarks are points that correspond to those of another image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bundle.formats.csv_points import read_csv, replace_csv
from bundle.formats.markups import read_fiducials, read_markups, replace_fiducials, replace_markups
from bundle.formats.surface_files import XML, read_stl, read_vtk, replace_stl, replace_vtk
from bundle.geometry import corresponding_rows
from bundle.geometry.correspondence import NamedPoints
from bundle.system.errors import DataWarning, printable
from bundle.system.files import written_whole
from bundle.system.limits import exists, read_whole, spelt_otherwise

Read = Callable[[bytes], NamedPoints]
Replace = Callable[[bytes, np.ndarray, np.ndarray | None], bytes]

TABLES = (".csv", ".tsv")
FORMATS: dict[str, tuple[Read, Replace]] = {
    ".mrk.json": (read_markups, replace_markups),
    ".fcsv": (read_fiducials, replace_fiducials),
    ".vtk": (read_vtk, replace_vtk),
    ".stl": (read_stl, replace_stl),
}
POINT_FORMATS = (*TABLES, *FORMATS)
"""File name endings of the point and surface files that are read and written."""
LANDMARK_FORMATS = (*TABLES, ".mrk.json", ".fcsv")
"""Those of points that correspond to the points of another file."""
SUPPORTED = "CSV (.csv, .tsv), 3D Slicer markups (.mrk.json, .fcsv), legacy VTK (.vtk) and STL (.stl)"


def point_format(path: str | Path) -> str | None:
    """File name ending that gives the format, one of ``POINT_FORMATS``; None for other files, such as images."""
    return next((suffix for suffix in POINT_FORMATS if Path(path).name.lower().endswith(suffix)), None)


def is_point_file(path: str | Path) -> bool:
    """Whether a file holds points or a surface, by its name."""
    return point_format(path) is not None


@dataclass(frozen=True, eq=False)
class PointFile:
    """A file of points, or of a surface, that was read.

    Attributes:
        path: the file.
        points: ``(n, 3)``, mm, RAS, in the order of the file; for STL, the three vertices of every facet.
        names: names of the points, as messages and pages show them; empty for points without one.
        unplaced: number of control points without a position; they are not among ``points``.
    """

    path: Path
    points: np.ndarray
    names: list[str]
    unplaced: int
    _content: bytes
    _side: str | None
    _planar: bool
    _affine: np.ndarray | None

    def write(
        self, path: str | Path, points: np.ndarray, outside: np.ndarray | None = None, affine: np.ndarray | None = None
    ) -> None:
        """Write a file of the same format with other points, and all unchanged that does not follow from them.

        A point is flagged in the column ``outside`` of CSV and in the description of markups and fiducials; surfaces
        have no place for flags.

        Args:
            path: the new file; its name has the same ending as the file that was read.
            points: ``(n, 3)``, mm, RAS, one for every point that was read.
            outside: ``(n,)``, whether each lay outside the volume; None writes no flags.
            affine: ``(4, 4)`` voxel-to-world of the image to which the points belong now, for a CSV of voxels; None:
                the image to which they belonged.

        Raises:
            ValueError: when the points or the name do not fit, or a point is not finite.
        """
        given = np.asarray(points, dtype=float)
        flags = None if outside is None else np.asarray(outside, dtype=bool)
        if given.shape != self.points.shape or (flags is not None and flags.shape != given.shape[:1]):
            shapes = f"points {given.shape}" + ("" if flags is None else f" and flags {flags.shape}")
            raise ValueError(f"{path}: {shapes}, expected {self.points.shape} and {self.points.shape[:1]}")
        if point_format(path) != point_format(self.path):
            raise ValueError(f"{path}: expected a name that ends in {point_format(self.path)}, as {self.path.name}")
        _check(given, path)
        image = self._affine if affine is None else affine
        _, replace = _functions(point_format(self.path), image, self._side, self._planar)
        content = replace(self._content, given, flags)
        with written_whole(Path(path), "wb") as file:
            file.write(content)


def read_points(
    path: str | Path, affine: np.ndarray | None = None, side: str | None = None, planar: bool = False
) -> PointFile:
    """Read a file of points or of a surface.

    Args:
        path: the file, of one of ``POINT_FORMATS``. CSV: the header says what the numbers are: ``x,y,z`` or ``r,a,s``
            mm in the image's RAS world, ``l,p,s`` mm in LPS, ``i,j,k`` voxels of the image. A file without a header
            holds voxels, as the keypoints of Learn2Reg do. Points of a slice may leave out ``z`` or ``k``, or be
            ``row,col``, counted from 0 at the centre of the first pixel. Markups and fiducials say whether they are
            LPS or RAS. Surfaces are LPS unless they say ``SPACE=RAS``.
        affine: ``(4, 4)`` voxel-to-world of the image to which the points belong, for a CSV of voxels or of a slice.
        side: ``fixed`` or ``moving`` in a CSV for both images of a pair, whose columns start with ``fixed_`` or
            ``moving_``; None for points of one image.
        planar: whether the image is a single slice.

    Returns:
        The points, with everything needed to write them again.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the format is not supported, or the file is damaged or holds no points.
    """
    path, suffix = Path(path), point_format(path)
    if suffix is None:
        what = XML if path.suffix.lower() in (".vtp", ".vtu") else "not a point or surface file that is supported"
        raise ValueError(f"{path}: {what}; supported are {SUPPORTED}")
    if side and suffix not in TABLES:
        raise ValueError(f"{path}: one file for both images of a pair is a CSV, with the columns of each")
    if not exists(path):
        raise FileNotFoundError(f"points not found: {path}{spelt_otherwise(path)}")
    try:
        content = read_whole(path)
        read, _ = _functions(suffix, affine, side, planar)
        found = read(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _check(found.points, path)
    if found.note:
        warnings.warn(f"{path}: {found.note}", DataWarning, stacklevel=1)
    names = [printable(name) for name in found.names or [""] * len(found.points)]
    if len(set(names)) == 1 < len(names):  # what all points are called tells nothing about any
        names = [""] * len(names)
    return PointFile(path, found.points, names, found.unplaced, content, side, planar, affine)


def _functions(suffix: str | None, affine: np.ndarray | None, side: str | None, planar: bool) -> tuple[Read, Replace]:
    """The functions that read and replace the points of a format."""
    if suffix in FORMATS:
        return FORMATS[suffix]
    return (
        partial(read_csv, affine=affine, side=side, planar=planar),
        partial(replace_csv, affine=affine, side=side, planar=planar),
    )


def _check(points: np.ndarray, path: str | Path) -> None:
    """Refuse a file without points, or with points that are not finite."""
    if not len(points):
        raise ValueError(f"{path}: no points in the file, expected one at least")
    broken = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if broken.size:
        raise ValueError(f"{path}: point {broken[0] + 1} is not finite, expected three numbers")


def read_landmarks(path: str | Path, affine: np.ndarray, side: str | None = None, planar: bool = False) -> PointFile:
    """Read points that correspond to those of another image.

    Args:
        path: a file of ``LANDMARK_FORMATS``, as :func:`read_points` reads it.
        affine: ``(4, 4)`` voxel-to-world of the image.
        side: ``fixed`` or ``moving`` in a CSV for both images of a pair; None in a file for one image.
        planar: whether the image is a single slice.

    Raises:
        ValueError: when the file cannot be read, or a point has no position, so that the others would not correspond.
    """
    if point_format(path) not in LANDMARK_FORMATS:
        raise ValueError(f"{path}: not a file of landmarks, expected {', '.join(LANDMARK_FORMATS)}")
    file = read_points(path, affine, side, planar)
    if file.unplaced:
        raise ValueError(
            f"{path}: {file.unplaced} control points have no position; place them, or delete them and the points that "
            "correspond to them"
        )
    return file


def has_landmarks(data: Mapping[Any, Any]) -> bool:
    """Whether a pair has files of corresponding points, one for both images or one for each."""
    return "landmarks" in data or ("fixed_landmarks" in data and "moving_landmarks" in data)


def pair_points(
    data: Mapping[Any, Any], grids: Mapping[str, tuple[Sequence[int], np.ndarray]]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Points of both images of a pair, in the order of the fixed ones.

    Those of two files correspond as :func:`bundle.geometry.corresponding_rows` says.

    Args:
        data: a pair with ``landmarks``, or ``fixed_landmarks`` and ``moving_landmarks``.
        grids: shape and affine of the fixed and the moving image, as read from file.

    Returns:
        Names, such as ``point apex``, or ``point 0`` of the first row where the files give none; the fixed and the
        moving points, ``(n, 3)``, mm, RAS, each in the world of its image.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when they cannot be read, or do not correspond.

    Warns:
        DataWarning: about points that are only numbered, in another order.
    """
    both = "landmarks" in data
    fixed, moving = (
        read_landmarks(
            data["landmarks" if both else f"{side}_landmarks"],
            grids[side][1],
            side if both else None,
            planar=grids[side][0][2] == 1,
        )
        for side in ("fixed", "moving")
    )
    if len(fixed.points) != len(moving.points):
        found = f"{len(fixed.points)} fixed and {len(moving.points)} moving landmarks"
        raise ValueError(f"{moving.path}: {found}; rows must correspond")
    try:
        order, doubt = corresponding_rows(fixed.names, moving.names)
    except ValueError as error:
        raise ValueError(f"{moving.path}: {error}") from error
    if doubt:
        # At its own place, so that those who read the points again do not repeat it.
        warnings.warn(f"{moving.path}: {doubt}", DataWarning, stacklevel=1)
    called = [name or moving.names[row] for name, row in zip(fixed.names, order, strict=True)]
    shown = called if all(called) and len(set(called)) == len(called) else range(len(called))
    return [f"point {name}" for name in shown], fixed.points, moving.points[order]
