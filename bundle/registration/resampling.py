"""Labels resampled: by the nearest voxel, or by partial volumes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from bundle.geometry import warp_native

LABEL_MODES = ("nearest", "gaussian")


def warp_label(
    label: torch.Tensor, moving_affine: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, mode: str
) -> torch.Tensor:
    """Resample a label onto the fixed grid.

    ``"nearest"`` takes the nearest voxel. ``"gaussian"`` takes the structure with the largest part of a voxel,
    ``argmax_k (G * [m = k])(T(x))``, the Gaussian of half the coarser of the two voxel sizes: contours stay smooth, and
    what is thinner than a voxel of the fixed grid is not hit or missed by chance.

    Args:
        label: ``(1, *moving_shape)`` integer map, or ``(channels, *moving_shape)`` with a structure per channel.
        moving_affine: ``(4, 4)`` voxel-to-world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world.
        mode: one of ``LABEL_MODES``.

    Returns:
        ``(channels, *fixed_shape)``, values of the label; 0 where the moving label has no data.
    """
    if mode == "nearest":
        return warp_native(label, moving_affine, displacement, fixed_affine, "nearest")
    spacings = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (moving_affine, fixed_affine)]
    sigma = np.maximum(0.5, 0.5 * spacings[1].max() / spacings[0])

    def part(mask: torch.Tensor) -> torch.Tensor:
        """Part of every fixed voxel that a structure has."""
        smooth = gaussian_filter(mask.numpy().astype(np.float32), sigma, mode="nearest")
        return warp_native(torch.as_tensor(smooth)[None], moving_affine, displacement, fixed_affine)[0]

    if len(label) > 1:
        return torch.stack([(part(channel > 0) > 0.5).to(label) for channel in label])
    winner = torch.zeros(displacement.shape[1:], dtype=label.dtype)
    largest, total = torch.zeros(winner.shape), torch.zeros(winner.shape)
    for value in label.unique()[label.unique() != 0]:
        share = part(label[0] == value)
        winner = torch.where(share > largest, value, winner)
        largest, total = torch.maximum(largest, share), total + share
    # The rest of a voxel is background, beyond the moving label too.
    return torch.where(1 - total > largest, 0, winner)[None]
