"""Intensities of images in [0, 1], whatever their unit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform, ScaleIntensityRange
from monai.transforms.utils_pytorch_numpy_unification import percentile

FAR = 2.0
"""An extreme value that many voxels share is not an intensity but a marker, such as the padding around the field of
view of CT, if it is farther from all others than this many times their range."""


class RobustIntensityd(MapTransform):
    """Scale images to [0, 1] by a range that is robust and never empty (``robust_range``), and clip them.

    ``I -> clip((I - a) / (b - a), 0, 1)``: another unit, ``s I + t`` with ``s > 0``, gives the same result.

    Args:
        keys: images ``(1, *shape)``.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        allow_missing_keys: as in MONAI.
    """

    def __init__(self, keys: str | list[str], lower: float, upper: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"intensity percentiles are {lower}, {upper}; expected two between 0 and 100, in order")
        self.lower = lower
        self.upper = upper

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale every image; one with a single intensity becomes 0."""
        output = dict(data)
        for key in self.key_iterator(output):
            image = output[key]
            low, high = robust_range(torch.as_tensor(image).flatten(), self.lower, self.upper)
            same = low == high
            output[key] = image * 0.0 if same else ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image)
        return output


def robust_range(values: torch.Tensor, lower: float, upper: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The intensities ``(a, b)`` of an image that become 0 and 1: two percentiles of its values, with two exceptions.

    If both percentiles are equal, because nearly everything is background, the range extends to the percentiles of the
    other values. Padding is left out: an extreme value that many voxels share, but not most, ``FAR`` from all others.

    Args:
        values: ``(n,)``, values of the whole image.
        lower: percentile.
        upper: percentile.

    Returns:
        ``a < b``; ``a = b`` if all values are equal.
    """
    low, high = (percentile(values, bound) for bound in (lower, upper))
    if low == high:
        others = values[values != low]
        if len(others):
            # Among few voxels, one outlier is more than a percentile, so the second value from either end is taken.
            ordered, few = others.sort().values, int(len(others) > 2)
            first, last = (int(share / 100 * (len(others) - 1)) + few for share in (lower, 100 - upper))
            low, high = torch.minimum(low, ordered[first]), torch.maximum(high, ordered[-1 - last])
        return low, high
    for padding in (low, high):
        if padding in (values.min(), values.max()) and 2 * (values == padding).sum() < len(values):
            others = values[values != padding]
            inner_low, inner_high = (percentile(others, bound) for bound in (lower, upper))
            gap = torch.maximum(others.min() - padding, padding - others.max())
            if gap > FAR * (inner_high - inner_low) > 0:
                return robust_range(others, lower, upper)
    return low, high
