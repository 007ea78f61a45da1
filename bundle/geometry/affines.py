"""Affines: conversion between RAS and LPS, what an affine says about its grid, and what two say about a pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Its own inverse."""
LPS_SIGNS = np.diag(RAS_TO_LPS)[:3].reshape(3, 1, 1, 1)
"""Factors of a field of vectors ``(3, X, Y, Z)`` between RAS and LPS."""
HALF_VOXEL = 0.5 + 1e-3
"""Half a voxel, with a margin so that rounding does not lose a point on the face of a grid."""


def flip(matrix: np.ndarray) -> np.ndarray:
    """Convert an affine between LPS spaces to one between RAS spaces, or back: ``S A S``."""
    return RAS_TO_LPS @ matrix @ RAS_TO_LPS


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between the corners of a grid under two affines.

    Args:
        shape: voxels along each axis.
        affine: voxel -> world, homogeneous.
        other: the same.
    """
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shape))))
    difference = np.asarray(affine, dtype=float) - np.asarray(other, dtype=float)
    dims = corners.shape[1]
    return float(np.linalg.norm(corners @ difference[:-1, :dims].T + difference[:-1, -1], axis=1).max())


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Distance between voxels along each axis: the length of the affine's columns."""
    spacing: np.ndarray = np.linalg.norm(np.asarray(affine, dtype=float)[:-1, :-1], axis=0)
    return spacing


def centre_of_volume(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """World position (mm) of the centre of a grid.

    Args:
        affine: ``(4, 4)`` voxel-to-world.
        shape: spatial shape.
    """
    centre = np.zeros(4)
    centre[: len(shape)] = (np.asarray(shape) - 1) / 2
    centre[3] = 1
    return (affine @ centre)[:3]


def initial_alignment(
    mode: str,
    fixed_affine: np.ndarray,
    fixed_shape: Sequence[int],
    moving_affine: np.ndarray,
    moving_shape: Sequence[int],
) -> np.ndarray:
    """Affine ``M`` that takes a fixed world point to the moving world point from which registration starts.

    Args:
        mode: ``"world"`` trusts the headers (``M = I``); ``"center"`` aligns the centres of the two volumes
            (a translation); ``"none"`` aligns voxel indices (``M = A_moving A_fixed^-1``).
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        fixed_shape: its spatial shape.
        moving_affine: ``(4, 4)`` voxel-to-world of the moving image.
        moving_shape: its spatial shape.

    Returns:
        ``(4, 4)``, mm to mm, RAS.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode == "world":
        return np.eye(4)
    if mode == "center":
        alignment = np.eye(4)
        alignment[:3, 3] = centre_of_volume(moving_affine, moving_shape) - centre_of_volume(fixed_affine, fixed_shape)
        return alignment
    if mode == "none":
        return moving_affine @ np.linalg.inv(fixed_affine)
    raise ValueError(f"initial_alignment is {mode!r}; expected 'world', 'center' or 'none'")


def isotropic_grid(affine: np.ndarray, shape: Sequence[int], spacing: float) -> tuple[np.ndarray, tuple[int, ...]]:
    """Grid of cubic voxels along the axes of another grid, from its first voxel to its last.

    Affines that differ by rounding have the same grid: a header in single precision tilts oblique axes by 1e-8, and
    a length of half a voxel may become less than that. The axes of a sheared grid are made orthogonal.

    Args:
        affine: ``(4, 4)`` voxel-to-world.
        shape: voxels along each of three axes.
        spacing: mm.

    Returns:
        ``(4, 4)`` voxel-to-world, and the shape.
    """
    linear = affine[:3, :3]
    cubic = np.eye(4)
    cubic[:3, :3] = spacing * linear @ np.linalg.inv(np.linalg.cholesky(linear.T @ linear).T)
    ends = np.array(list(itertools.product(*((0, length - 1) for length in shape))))
    corners = transform_points(np.linalg.solve(cubic, affine), ends)
    first, last = corners.min(0), corners.max(0)
    cubic[:3, 3] = transform_points(cubic, first[None])[0]
    return cubic, tuple(int(length) for length in np.floor(last - first + 1 + HALF_VOXEL))


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points under a homogeneous transform: ``q = M[:3,:3] p + M[:3,3]``.

    Args:
        matrix: ``(4, 4)``.
        points: ``(n, 3)`` in the transform's source space.

    Returns:
        ``(n, 3)`` in its target space.
    """
    return points @ matrix[:3, :3].T + matrix[:3, 3]
