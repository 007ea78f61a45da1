"""Slices in space: their order, the affine of the volume they make, and why some make none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.geometry import RAS_TO_LPS

SLICE_TOLERANCE = 0.1
"""How far from its place in an even stack a slice may lie, in distances of slices."""
PLANE_TOLERANCE = 1e-3
"""By how much direction cosines of one plane may differ: headers round them to three digits at worst."""


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one size.

    Attributes:
        order: of the slices along their normal.
        affine: ``(4, 4)`` voxel (column, row, slice) to world, mm, RAS; the identity where there is none.
        problem: why they are no volume, in words; empty when they are one.
    """

    order: tuple[int, ...]
    affine: np.ndarray
    problem: str = ""


def stack_slices(
    positions: np.ndarray, orientation: np.ndarray, spacing: Sequence[float], names: Sequence[str]
) -> Stack:
    """Order slices by their place along the normal, and find the affine (DICOM PS3.3 C.7.6.2.1.1).

    ::

        p = S_xyz + r * i * dc + c * j * dr,   slices from the first to the last position

    with ``r`` the direction along a row, ``c`` along a column, ``dr`` and ``dc`` the distances of rows and columns.
    The distance of slices is measured between their positions: SliceThickness says something else.

    Args:
        positions: ``(slices, 3)``, ImagePositionPatient, mm, LPS.
        orientation: ``(6,)``, ImageOrientationPatient.
        spacing: PixelSpacing, mm: of the rows, of the columns.
        names: what each slice is called in a message.

    Returns:
        The stack, or what is wrong with it.
    """
    along_row, along_column = orientation.reshape(2, 3)
    normal = np.cross(along_row, along_column)
    depth = positions @ normal
    order = tuple(np.argsort(depth, kind="stable").tolist())
    first, last = positions[order[0]], positions[order[-1]]
    steps = len(order) - 1
    lps = np.eye(4)
    # A slice alone is as thick as its pixels are wide, as a picture is.
    through = (last - first) / steps if steps else normal * min(spacing)
    lps[:3, :3] = np.stack([along_row * spacing[1], along_column * spacing[0], through], axis=1)
    lps[:3, 3] = first
    problem = _not_a_plane(along_row, along_column, spacing)
    if not problem and steps:
        problem = _uneven(depth[list(order)], [names[index] for index in order])
        problem = problem or _sheared(last - first, normal, spacing)
    return Stack(order, RAS_TO_LPS @ lps, problem)


def _not_a_plane(along_row: np.ndarray, along_column: np.ndarray, spacing: Sequence[float]) -> str:
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if not np.isfinite([*along_row, *along_column, *spacing]).all() or min(spacing) <= 0:
        return "its headers do not say where it lies: the spacing or orientation of its pixels is no number above 0"
    if np.abs(lengths - 1).max() > 10 * PLANE_TOLERANCE or abs(along_row @ along_column) > 10 * PLANE_TOLERANCE:
        return "ImageOrientationPatient is not two directions at a right angle; the headers are damaged"
    return ""


def _uneven(depth: np.ndarray, names: Sequence[str]) -> str:
    """What is wrong with the places of slices along their normal, mm."""
    gaps = np.diff(depth)
    step = np.median(gaps)
    twice = int(np.argmin(gaps))
    if gaps[twice] < SLICE_TOLERANCE * max(step, 1e-3):
        return (
            f"slices {names[twice]} and {names[twice + 1]} lie at one place: several images (echoes, time points) in "
            "one series; export each as a series of its own"
        )
    step = gaps.min()
    counts = np.rint(gaps / step)
    even = np.abs(gaps - counts * step).max() <= 2 * SLICE_TOLERANCE * step
    if even and counts.max() > 1:
        wide = int(np.argmax(counts > 1))
        missing = int(counts.sum() - len(gaps))
        return (
            f"{missing} {'slice is' if missing == 1 else 'slices are'} missing, the first between {names[wide]} and "
            f"{names[wide + 1]}; export the whole series again"
        )
    expected = np.linspace(depth[0], depth[-1], len(depth))
    if np.abs(depth - expected).max() > SLICE_TOLERANCE * (expected[1] - expected[0]):
        return (
            f"its slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart, expected even distances; slices are "
            "missing, or it needs to be resampled"
        )
    return ""


def _sheared(through: np.ndarray, normal: np.ndarray, spacing: Sequence[float]) -> str:
    """Whether slices shift within their plane by more than half a pixel from the first to the last."""
    along = through @ normal
    shift = np.linalg.norm(through - along * normal)
    if shift <= 0.5 * min(spacing):
        return ""
    return (
        f"its slices are sheared by {np.degrees(np.arctan2(shift, along)):.1f} degrees (a tilted gantry), and shift by "
        f"{shift:.3g} mm from the first to the last; resample it to a straight grid, for instance with dcm2niix"
    )
