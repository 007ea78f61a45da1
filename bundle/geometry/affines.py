"""What an affine says of its grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """How far apart two affines put the corners of a grid, at most.

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
