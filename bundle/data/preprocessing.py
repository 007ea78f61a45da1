"""Our own MONAI dictionary transforms on the way from a file to the network's grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange, SpatialResample, Transform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor
from scipy.ndimage import gaussian_filter1d

from bundle.geometry import at_faces, initial_alignment, isotropic_grid

FAR = 2.0
"""An extreme value that many voxels share is not an intensity but a marker, such as the padding around the field of
view in CT, if it is farther from all others than this many times their range."""
FARTHER, RAMP, REACH = 3.0, 0.2, 3
"""The same for padding at the border that was interpolated, and the bulk of the others; the largest share of these
between the two; how many voxels beside it may have changed."""
SMALLEST, STEPS = 0.05, 8
"""Smallest share of an image that padding without an extreme value, or the rest, has; steps to find the two."""
SAMPLE = 2**18
"""Voxels that tell, if there are as many."""
INFINITY = torch.tensor(torch.inf)
Ends = list[tuple[torch.Tensor, torch.Tensor]]
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


class InitialAlignmentd(Transform):
    """Move the moving image's frame so that registration starts from the chosen alignment.

    Its affine becomes ``M^-1 A_moving``, so that resampling to the fixed grid by world position applies ``M``; the
    voxels do not change. ``initial_alignment`` holds ``M`` (``bundle.geometry.initial_alignment``).

    Args:
        mode: ``"world"``, ``"center"`` or ``"none"``.

    Raises:
        ValueError: for another mode.
    """

    def __init__(self, mode: str) -> None:
        initial_alignment(mode, np.eye(4), (1, 1, 1), np.eye(4), (1, 1, 1))  # refused before any image is read
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change the affine of the moving image, label and mask."""
        output = dict(data)
        fixed, moving = data["fixed_image"], data["moving_image"]
        alignment = initial_alignment(
            self.mode, np.asarray(fixed.affine), fixed.shape[1:], np.asarray(moving.affine), moving.shape[1:]
        )
        for key in ("moving_image", "moving_label", "moving_mask"):
            if key in data:
                stamped = data[key].clone()
                stamped.affine = torch.as_tensor(np.linalg.inv(alignment) @ np.asarray(stamped.affine))
                output[key] = stamped
        output["initial_alignment"] = alignment
        return output


class SmoothToSpacingd(MapTransform):
    """Blur finer images to the resolution of the network's grid, so that resampling does not alias speckle.

    ``sigma^2 = (s_out^2 - s_in^2) / (2 sqrt(2 ln 2))^2`` per axis, in mm (Cardoso et al. 2015, scale factor point
    spread function matching); an axis that is coarser already stays as it is.

    Args:
        keys: images ``(1, *shape)``.
        pixdim: spacing of the network's grid, mm.
        allow_missing_keys: as in MONAI.
    """

    def __init__(self, keys: str | list[str], pixdim: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if pixdim <= 0:
            raise ValueError(f"pixdim is {pixdim}; expected the spacing of the network's grid, more than 0 mm")
        self.pixdim = pixdim

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Smooth every image."""
        output = dict(data)
        for key in self.key_iterator(output):
            array = output[key].numpy()
            for axis, spacing in enumerate(output[key].pixdim.tolist(), start=1):
                sigma = np.sqrt(max(0.0, self.pixdim**2 - spacing**2)) / FWHM_PER_SIGMA / spacing
                if sigma > 0:
                    array = gaussian_filter1d(array, sigma, axis=axis, mode="nearest")
            output[key] = MetaTensor(torch.as_tensor(array), affine=output[key].affine)
        return output


class IsotropicGridd(MapTransform):
    """Resample an image, and what belongs to it, linearly to one isotropic grid on the axes of the image.

    As MONAI's ``Spacingd``, but the grid does not depend on how a header has rounded the image's place
    (``bundle.geometry.isotropic_grid``).

    Args:
        keys: the image, then its label and mask.
        pixdim: spacing of the grid, mm.
        allow_missing_keys: as in MONAI.
    """

    def __init__(self, keys: str | list[str], pixdim: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixdim = pixdim
        self.resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float64)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample every key to the grid of the first."""
        output = dict(data)
        image = output[self.keys[0]]
        affine, shape = isotropic_grid(np.asarray(image.affine), image.shape[1:], self.pixdim)
        for key in self.key_iterator(output):
            output[key] = self.resample(output[key], torch.as_tensor(affine), shape)
        return output


class RobustIntensityd(MapTransform):
    """Scale images to [0, 1] by a range that is robust and never empty (``robust_range``), and clip them.

    ``I -> clip((I - a) / (b - a), 0, 1)``: another unit, ``s I + t`` with ``s > 0``, gives the same result.

    Args:
        keys: images ``(1, *shape)``.
        percentiles: that which becomes 0, and that which becomes 1.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: when these are not two, in order.
    """

    def __init__(self, keys: str | list[str], percentiles: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
            found = ", ".join(map(str, percentiles))
            raise ValueError(f"intensity percentiles are {found}; expected two between 0 and 100, in order")
        self.percentiles = percentiles

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale every image; one with a single intensity becomes 0."""
        output = dict(data)
        for key in self.key_iterator(output):
            image = output[key]
            if not torch.isfinite(image.max() - image.min()):  # the range of a sound image may overflow
                image = image * 0.25
            low, high = robust_range(convert_to_tensor(image, track_meta=False), *self.percentiles)
            same = low == high
            scaled = image * 0.0 if same else ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image)
            output[key] = scaled.to(torch.float32)
        return output


def robust_range(image: torch.Tensor, lower: float, upper: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The intensities ``(a, b)`` of an image that become 0 and 1: two percentiles of its values, with two exceptions.

    If both percentiles are equal, because nearly everything is background, the range extends to the percentiles of the
    other values. Padding is left out: an extreme value that many voxels share, ``FAR`` from all others. So is what a
    sharp mask has set to one value, and padding at the border that was interpolated (``_without_padding``).

    Args:
        image: ``(1, *shape)``; or values ``(n,)``, of which none is taken for interpolated padding.
        lower: percentile.
        upper: percentile.

    Returns:
        ``a < b``; ``a = b`` if all values are equal.
    """
    values = image.flatten()
    low, high = (percentile(values, bound) for bound in (lower, upper))
    if low == high:
        others = values[values != low]
        if len(others):
            # Among few voxels, one outlier is more than a percentile, so the second value from either end is taken.
            ordered, few = others.sort().values, int(len(others) > 2)
            first, last = (int(share / 100 * (len(others) - 1)) + few for share in (lower, 100 - upper))
            low, high = torch.minimum(low, ordered[first]), torch.maximum(high, ordered[-1 - last])
        return low, high
    ends = _ends(values, low, high)
    kept = _without_ends(values, ends, lower, upper)
    if image.ndim > 1 and len(kept) == len(values):
        kept = _without_padding(image, ends, lower, upper)
    return robust_range(kept, lower, upper) if len(kept) < len(values) else (low, high)


def _ends(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> Ends:
    """The lowest value, the highest, and both, as far as they are percentiles; infinity stands for the other end."""
    lowest, highest = bool(low == values.min()), bool(high == values.max())
    ends = [(low, INFINITY)] * lowest + [(-INFINITY, high)] * highest
    return ends + [(low, high)] * (lowest and highest)


def _without_ends(values: torch.Tensor, ends: Ends, lower: float, upper: float) -> torch.Tensor:
    """Values without the lowest, the highest or both, where these are ``FAR`` from all others; else all of them."""
    for bottom, top in ends:
        others = values[(values > bottom) & (values < top)]
        if 0 < len(others) < len(values):
            inner_low, inner_high = (percentile(others, bound) for bound in (lower, upper))
            if 0 < FAR * (inner_high - inner_low) < torch.minimum(others.min() - bottom, top - others.max()):
                return others
    return values


def _without_padding(image: torch.Tensor, ends: Ends, lower: float, upper: float) -> torch.Tensor:
    """Values ``(n,)`` without padding at the border that was interpolated; all of them if there is none.

    Such padding is an extreme value, more frequent at the border than elsewhere, and ``FARTHER`` from the bulk of the
    others. The voxels within ``REACH`` of it are left out with it, and all that is not within ``FAR`` of the bulk.
    """
    values = image.flatten()
    sample = values[:: len(values) // SAMPLE | 1]
    rim = at_faces(image[0])
    for first, last in [*ends, *_clusters(sample)]:
        inner = sample[(sample > first) & (sample < last)]
        if not len(inner):
            continue
        bottom = percentile(inner, lower if first == -INFINITY else 100 * RAMP)
        top = percentile(inner, upper if last == INFINITY else 100 * (1 - RAMP))
        reach = top - bottom
        if 0 < FARTHER * reach < torch.minimum(bottom - first, last - top):
            kept = torch.ones_like(image, dtype=torch.bool)
            for sign, end, bound in ((1, first, bottom), (-1, last, top)):
                at_rim, at_all = ((sign * voxels <= sign * end).double().mean() for voxels in (rim, sample))
                if at_rim >= at_all > 0:
                    kept &= ~_spread(sign * image <= sign * end) & (sign * image >= sign * bound - FAR * reach)
            return image[kept] if kept.any() else values
    return values


def _spread(mask: torch.Tensor) -> torch.Tensor:
    """A mask ``(1, *shape)`` and the voxels near it, as far as interpolation reaches."""
    spread = mask.float()
    for axis in range(3):
        size, edge = [1, 1, 1], [0, 0, 0]
        size[axis], edge[axis] = 2 * REACH + 1, REACH
        spread = torch.nn.functional.max_pool3d(spread, size, 1, edge)
    return spread > 0


def _clusters(sample: torch.Tensor) -> Ends:
    """The bulk of the lower and of the upper part, as ``_ends``: padding that splines have resampled rings.

    The parts are those of the threshold halfway between their means (Ridler and Calvard 1978).
    """
    threshold = (sample.min() + sample.max()) / 2
    for _ in range(STEPS):
        below, above = sample[sample <= threshold], sample[sample > threshold]
        if min(len(below), len(above)) < SMALLEST * len(sample):
            return []
        threshold = (below.mean() + above.mean()) / 2
    return [(percentile(below, 100 * (1 - RAMP)), INFINITY), (-INFINITY, percentile(above, 100 * RAMP))]
