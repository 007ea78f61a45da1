"""Points through a displacement field and distances between them."""

from __future__ import annotations

import numpy as np
import torch

from bundle.geometry.grids import apply_affine, sample, voxel_grid


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points under a homogeneous transform: ``q = M[:3,:3] p + M[:3,3]``.

    Args:
        matrix: ``(4, 4)``.
        points: ``(n, 3)`` in the transform's source space.

    Returns:
        ``(n, 3)`` in its target space.
    """
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def fixed_to_moving(points: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray) -> np.ndarray:
    """Map fixed points to the moving image: ``q = p + d(p)``, the direction of the pull-back field.

    Args:
        points: ``(n, 3)``, mm, RAS, in the fixed image's world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.

    Returns:
        ``(n, 3)``, mm, RAS, in the moving image's world.
    """
    world = torch.as_tensor(points.T[..., None, None], dtype=torch.float32, device=displacement.device)
    shift = sample(displacement, apply_affine(np.linalg.inv(fixed_affine), world), padding_mode="border")
    return (world + shift)[..., 0, 0].T.cpu().numpy()


def moving_to_fixed(
    points: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, iterations: int = 100
) -> np.ndarray:
    """Map moving points to the fixed image, the inverse of :func:`fixed_to_moving`: where warping takes them.

    Solves ``p + d(p) = q`` by the fixed-point iteration ``p <- q - d(p)`` (Chen et al. 2008), which converges where
    the displacement changes by less than the distance, ``|d(a) - d(b)| < |a - b|``.

    Args:
        points: ``(n, 3)``, mm, RAS, in the moving image's world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        iterations: most of them; they end once no point moves by more than 0.001 mm.

    Returns:
        ``(n, 3)``, mm, RAS, in the fixed image's world.
    """
    found = points
    for _ in range(iterations):
        before = found
        found = points - (fixed_to_moving(before, displacement, fixed_affine) - before)
        if np.abs(found - before).max(initial=0) < 1e-3:
            break
    return found


def centroids(channels: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Centroid of every channel of a label, weighted by its values.

    Args:
        channels: ``(structures, *shape)``, non-negative.
        affine: ``(4, 4)`` voxel-to-world.

    Returns:
        ``(structures, 3)``, mm, RAS; NaN for an empty channel.
    """
    world = apply_affine(affine, voxel_grid(channels.shape[1:], channels.device)).flatten(1).double()
    weights = channels.flatten(1).double()
    return ((weights @ world.T) / weights.sum(1, keepdim=True)).cpu().numpy()
