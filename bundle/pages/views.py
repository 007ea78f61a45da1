"""Slices as people look at them: which slice, which way up, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from bundle.geometry import spacing_of

MOST_PIXELS = 320
"""Most pixels along a side of a slice: finer slices are averaged, so that a page stays small."""
# Axes pointing left, posterior and superior: a row of the picture is a step along its second axis.
RADIOLOGICAL = (
    ("axial", 2, (0, 1), False, ("R", "L", "A", "P")),
    ("coronal", 1, (0, 2), True, ("R", "L", "S", "I")),
    ("sagittal", 0, (1, 2), True, ("A", "P", "S", "I")),
)


@dataclass(frozen=True)
class View:
    """A slice of a ``Volumes`` as it is shown.

    Attributes:
        name: name of its plane.
        across: axis perpendicular to the slice.
        index: index of the slice along that axis.
        axes: axes of columns and rows.
        upwards: whether the rows of the picture run against their axis.
        spacing: spacing of columns and rows, mm.
        size: width and height, mm.
        letters: anatomical directions at the left, right, top and bottom edge; None for a picture.
        step: voxels along a side that become one pixel.
        count: number of slices.
    """

    name: str
    across: int
    index: int
    axes: tuple[int, int]
    upwards: bool
    spacing: tuple[float, float]
    size: tuple[float, float]
    letters: tuple[str, str, str, str] | None
    step: int
    count: int

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a turned volume as ``(rows, columns)``, the first row on top."""
        return self.flat(self.thick(volume))

    def thick(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a turned volume as a volume of one slice."""
        return volume.take([self.index], self.across)

    def flat(self, slab: np.ndarray) -> np.ndarray:
        """A volume of this one slice as ``(rows, columns)``, the first row on top."""
        plane = slab.squeeze(self.across).T
        return plane[::-1] if self.upwards else plane

    def slab(self, affine: np.ndarray, first: int) -> np.ndarray:
        """Voxel-to-world of the slices from ``first`` on, given that of the turned volume."""
        start = np.eye(4)
        start[self.across, 3] = first
        return affine @ start

    def pixels(self, plane: np.ndarray) -> np.ndarray:
        """A slice with ``step`` voxels averaged along either side."""
        return _blocks(plane.astype(float), self.step).mean((1, 3))

    def marks(self, plane: np.ndarray) -> np.ndarray:
        """A slice of a mask; a pixel is set if any of its voxels is."""
        return _blocks(plane, self.step).max((1, 3))

    @property
    def position(self) -> str:
        """Text that says which slice it is."""
        return "" if self.count == 1 else f"slice {self.index + 1} of {self.count}"


def _blocks(plane: np.ndarray, step: int) -> np.ndarray:
    """``(rows, columns)`` as ``(rows / step, step, columns / step, step)``, the outermost repeated to fill a block."""
    rows, columns = plane.shape
    padded = np.pad(plane, ((0, -rows % step), (0, -columns % step)), mode="edge")
    return padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)


class Volumes:
    """Turns arrays on the grid of an image to the way people look at it, and cuts slices.

    Volumes are shown as in radiology: the patient's right is on the left of the picture, anterior or superior on top,
    along the axes of the image nearest to these directions. Pictures stay as they are, rows downwards.

    Args:
        affine: ``(4, 4)`` voxel-to-world of the grid.
        shape: shape of the grid, three axes.
        picture: whether the image is a picture, whose affine says nothing about directions.
    """

    def __init__(self, affine: np.ndarray, shape: Sequence[int], picture: bool) -> None:
        start = nib.orientations.io_orientation(affine)
        turned = nib.orientations.axcodes2ornt(("L", "P", "S"))
        self.change = nib.orientations.ornt_transform(start, start if picture else turned)
        self.affine = affine @ nib.orientations.inv_ornt_aff(self.change, shape)
        self.spacing = spacing_of(self.affine)
        self.picture = picture
        self.shape = tuple(int(shape[axis]) for axis in np.argsort(self.change[:, 0]))

    def turn(self, array: np.ndarray) -> np.ndarray:
        """The same voxels ``(X, Y, Z)``, with axes as they are shown."""
        return nib.orientations.apply_orientation(array, self.change)

    def along_axes(self, vectors: np.ndarray) -> np.ndarray:
        """World vectors ``(3, ...)`` as components along the axes that are shown; the same unit."""
        return np.tensordot(np.linalg.inv(self.affine[:3, :3] / self.spacing), vectors, axes=1)

    def views(self, label: np.ndarray | None) -> list[View]:
        """The planes through most of a turned label, or through the middle; for a single slice, the slice itself.

        Args:
            label: turned mask, or None.
        """
        shape, found = self.shape, []
        for name, across, axes, upwards, letters in RADIOLOGICAL:
            columns, rows = axes
            if min(shape[columns], shape[rows]) == 1:
                continue
            spacing = (float(self.spacing[columns]), float(self.spacing[rows]))
            found.append(
                View(
                    name="picture" if self.picture else name,
                    across=across,
                    index=slice_of_interest(label, shape, across),
                    axes=axes,
                    upwards=upwards,
                    spacing=spacing,
                    size=(spacing[0] * shape[columns], spacing[1] * shape[rows]),
                    letters=None if self.picture else letters,
                    step=-(-max(shape[columns], shape[rows]) // MOST_PIXELS),
                    count=shape[across],
                )
            )
        return found


def slice_of_interest(label: np.ndarray | None, shape: Sequence[int], axis: int) -> int:
    """Index of the slice across ``axis`` with most of the label, or the middle one without a label."""
    if label is None or not label.any():
        return shape[axis] // 2
    others = tuple(other for other in range(label.ndim) if other != axis)
    return int(label.sum(others).argmax())
