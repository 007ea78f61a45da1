"""From the files of a pair to arrays, with labels and masks on the axes of their images."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from bundle.formats.images import read_image
from bundle.formats.problems import dimensions, grid_problems, other_grid
from bundle.formats.voxels import Found
from bundle.geometry.affines import corner_distance, spacing_of
from bundle.system.errors import DataWarning

KINDS = ("image", "label", "mask")
OFF = 0.1
"""Voxels by which those of a segmentation may be off the image's."""
UNNAMED = re.compile(r"Segment(_\d+)*|", re.IGNORECASE)
"""Names that 3D Slicer gives, in the order in which segments are made."""
BY_NUMBER = "structures are compared by number: number them alike, or name them in structures.json"
Grid = tuple[Sequence[int], np.ndarray]
"""Shape and voxel-to-world affine."""


def read_part(path: str | Path, kind: str, grid: Grid | None = None) -> Found:
    """Read the file of an image, label or mask; the whole bundle reads them with this function.

    The values of a label or mask are whole numbers. It is placed by its own affine: if only the order or direction of
    its axes differs from its image's, it gets the image's axes, and no value is interpolated. A label that lies
    elsewhere stays where it is, for ``bundle.formats.problems.label_problems`` to report.

    Args:
        path: the file.
        kind: one of ``KINDS``.
        grid: grid of the image to which a label or mask belongs, if known.

    Returns:
        ``(channels, X, Y, Z)``.

    Raises:
        ValueError: when it cannot be read, or the values of a label or mask are not whole numbers.
    """
    found = read_image(path, kind)
    return found if grid is None else on_axes_of(found, *grid, str(path))


def on_axes_of(label: Found, shape: Sequence[int], target: np.ndarray, name: str) -> Found:
    """A label with its axes in the order and direction of its image's, and its affine, if it then lies on its grid.

    A segmentation of 3D Slicer that covers a part of the grid gets the rest, which is background; background beside the
    grid is left out.

    Args:
        label: the label.
        shape: voxels of its image along each axis.
        target: ``(4, 4)`` voxel-to-world of its image, mm, RAS.
        name: name of the label in the warning.

    Warns:
        DataWarning: about a label that is beside its image by a part of a voxel, and is taken to lie on it.
    """
    found = _turned(label, shape, target)
    own, planar = found.channels.shape[1:], dimensions(shape)
    placed = not any(grid_problems(own, affine, name, planar) for affine in (found.affine, target))
    if not placed or other_grid(own, found.affine, name, shape, target):
        return found
    distance = corner_distance(shape, found.affine, target)
    if distance > OFF * spacing_of(target).min():
        note = f"it lies up to {distance:.2g} mm, a part of a voxel, from its image by their affines"
        warnings.warn(f"{name}: {note}, and is taken to lie on it; give both one header", DataWarning, stacklevel=2)
    # Even affines that differ by rounding may lead to different grids of the network.
    return replace(found, affine=np.array(target, dtype=float))


def _turned(label: Found, shape: Sequence[int], target: np.ndarray) -> Found:
    own = label.channels.shape[1:]
    # The part of a grid that holds something may be a single voxel: what its affine is does not depend on that.
    least = (2, 2, 2) if label.segments else own
    for grid, placed in ((least, label.affine), (shape, target)):
        if grid_problems(grid, placed, "", dimensions(grid)):
            return label
    # Voxels of the image along the axes of the label: a signed permutation if both have the same grid.
    turn = nib.orientations.io_orientation(np.linalg.inv(target) @ label.affine)
    straight = np.array_equal(turn, [[0, 1], [1, 1], [2, 1]])
    if np.isnan(turn).any() or (straight and not label.segments):
        return label
    turned = label.affine @ nib.orientations.inv_ornt_aff(turn, own)
    voxels = np.stack([nib.orientations.apply_orientation(channel, turn) for channel in label.channels])
    if label.segments:
        voxels, turned = _uncropped(voxels, turned, shape, target)
    if other_grid(voxels.shape[1:], turned, "", shape, target):
        return label
    return replace(label, channels=np.ascontiguousarray(voxels), affine=turned)


def segment_doubt(
    fixed: str, moving: str, labels: Sequence[str] = ("the fixed label", "the moving label"), advice: str = BY_NUMBER
) -> str:
    """A line about segmentations of 3D Slicer that give a structure two numbers, or a number to two structures.

    3D Slicer numbers segments anew when it saves them: where a patient lacks one, those after it have other numbers.

    Args:
        fixed: names of the segments of the fixed label by their numbers, as JSON; empty if it has none.
        moving: the same of the moving label.
        labels: what the line calls the two.
        advice: how it ends.

    Returns:
        The line, or an empty one.
    """
    named = [{int(number): name for number, name in json.loads(side or "{}").items()} for side in (fixed, moving)]
    numbers = [
        {name.casefold(): number for number, name in side.items() if not UNNAMED.fullmatch(name)} for side in named
    ]
    for name, ours in sorted(numbers[0].items(), key=lambda item: item[1]):
        theirs = numbers[1].get(name, ours)
        if ours != theirs:
            return f"{named[0][ours]} is {ours} in {labels[0]} and {theirs} in {labels[1]}; {advice}"
    for number in sorted(named[0].keys() & named[1].keys()):
        ours, theirs = (side[number] for side in named)
        if ours.casefold() != theirs.casefold() and not any(map(UNNAMED.fullmatch, (ours, theirs))):
            return f"{number} is {ours} in {labels[0]} and {theirs} in {labels[1]}; {advice}"
    return ""


def _uncropped(
    voxels: np.ndarray, affine: np.ndarray, shape: Sequence[int], target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine of a part of a grid on the whole of it; unchanged if it is elsewhere, or has more beside it."""
    own = voxels.shape[1:]
    start = np.rint((np.linalg.inv(target) @ affine)[:3, 3]).astype(int)
    after = np.array(shape) - start - own
    placed = np.array(target)
    placed[:3, 3] += placed[:3, :3] @ start
    apart = corner_distance(own, affine, placed)
    beside = np.maximum(-start, 0), np.maximum(-after, 0)
    kept = [slice(low, max(0, size - high)) for low, high, size in zip(*beside, own, strict=True)]
    inner = voxels[(slice(None), *kept)]
    lost = not inner.size or np.count_nonzero(inner) < np.count_nonzero(voxels)
    if lost or apart > OFF * spacing_of(target).min():
        return voxels, affine
    around = zip(np.maximum(start, 0), np.maximum(after, 0), strict=True)
    return np.pad(inner, [(0, 0), *around]), np.asarray(target)
