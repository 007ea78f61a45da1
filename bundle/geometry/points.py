"""Points through a displacement field and distances between them."""

from __future__ import annotations

import numpy as np
import torch

from bundle.geometry.grids import apply_affine, sample, voxel_grid


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
    points: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, iterations: int = 50
) -> np.ndarray:
    """Map moving points to the fixed image: ``p`` with ``p + d(p) = q``, by the fixed point ``p <- q - d(p)``.

    Args:
        points: ``(n, 3)``, mm, RAS, in the moving image's world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        iterations: steps towards the fixed point.

    Returns:
        ``(n, 3)``, mm, RAS, in the fixed image's world.
    """
    found = points
    for _ in range(iterations):
        found = found + points - fixed_to_moving(found, displacement, fixed_affine)
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
