"""Points under affines and displacement fields, and centroids of labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike

from bundle.geometry.affines import transform_points
from bundle.geometry.grids import apply_affine, voxel_grid
from bundle.geometry.transforms import Displacement, aligned_transform

NO_ALIGNMENT = np.eye(4)


def move_points(points: ArrayLike, move: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Points of a user, moved.

    Args:
        points: ``(n, 3)``, or ``(3,)`` for one point, mm, RAS.
        move: from points ``(3, n)`` to points ``(3, n)``.

    Returns:
        The moved points, of the same shape.

    Raises:
        ValueError: for another shape.
    """
    rows = np.asarray(points, dtype=float)
    if rows.ndim not in (1, 2) or rows.shape[-1] != 3:
        raise ValueError(f"points of the shape {rows.shape}, expected (n, 3), or (3,) for one point")
    return move(torch.as_tensor(rows.reshape(-1, 3).T)).T.numpy().reshape(rows.shape)


def fixed_to_moving(
    points: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, alignment: np.ndarray = NO_ALIGNMENT
) -> np.ndarray:
    """Map fixed points to the moving image: ``q = p + d(p)``, the direction of the pull-back field.

    Beyond the centres of the outermost voxels, of which ``n`` is the nearest, ``q = p + d(n) + (M - I) (p - n)``: that
    is where ``aligned_transform`` takes them, whose field need not be made for a few points.

    Args:
        points: ``(n, 3)``, mm, RAS, in the fixed image's world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        alignment: ``M``, ``(4, 4)``, the initial alignment in the displacement.

    Returns:
        ``(n, 3)``, mm, RAS, in the moving image's world.
    """
    field = Displacement(displacement.cpu(), fixed_affine)
    last = np.array(displacement.shape[1:]) - 1
    nearest = transform_points(fixed_affine, transform_points(np.linalg.inv(fixed_affine), points).clip(0, last))
    beyond = (points - nearest) @ (alignment - np.eye(4))[:3, :3].T
    return field(torch.as_tensor(points.T)).T.numpy() + beyond


def moving_to_fixed(
    points: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, alignment: np.ndarray = NO_ALIGNMENT
) -> np.ndarray:
    """Map moving points to the fixed image, the inverse of :func:`fixed_to_moving`: where warping takes them.

    Args:
        points: ``(n, 3)``, mm, RAS, in the moving image's world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        alignment: the initial alignment in the displacement.

    Returns:
        ``(n, 3)``, mm, RAS, in the fixed image's world; see :meth:`bundle.geometry.Transform.inverse_at`.
    """
    transform = aligned_transform(displacement.cpu(), fixed_affine, alignment)
    return transform.inverse_at(torch.as_tensor(points.T)).T.numpy()


def centroids(channels: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Centroid of every channel of a label, weighted by its values.

    Args:
        channels: ``(structures, *shape)``, non-negative.
        affine: ``(4, 4)`` voxel-to-world.

    Returns:
        ``(structures, 3)``, mm, RAS; NaN for an empty channel.
    """
    world = apply_affine(affine, voxel_grid(channels.shape[1:], channels.device)).flatten(1)
    weights = channels.flatten(1).double()
    return ((weights @ world.T) / weights.sum(1, keepdim=True)).cpu().numpy()
