"""What of an image its scanner saw: the mask of the fan of ultrasound, derived from the image itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy.ndimage import grey_opening, label

from bundle.data.pairs import SIDES

BACKGROUND = 0.02
"""Background reaches this far above the lowest intensity, as a part of the range to the 99.5th percentile: noise."""
OPENING = 2.0
"""mm; dark structures that are thinner at the edge of the fan do not belong to the background."""
SMALLEST = 0.005
"""Of the image; a smaller piece of background is speckle, a smaller field of view has been derived wrongly."""


def field_of_view(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Everything but the background that reaches the border of the image.

    Background has the lowest intensity, is at least ``OPENING`` wide along every axis (a morphological opening with a
    box), and connects to the border. What remains is the field of view, of which the largest connected piece is kept: a
    text beside the fan is none of it, a dark cyst within is. A black shadow that is open to the border is taken for
    background.

    Args:
        image: ``(X, Y, Z)``; one slice will do.
        spacing: of the voxels along each axis, mm.

    Returns:
        Boolean mask of the same shape; all true for an image without background.

    Raises:
        ValueError: when hardly anything is left.
    """
    low, high = image.min(), np.percentile(image, 99.5)
    dark = (image <= low + BACKGROUND * (high - low)).astype(np.uint8)
    lengths = zip(image.shape, spacing, strict=True)
    box = [max(2, int(np.ceil(OPENING / step))) if size > 1 else 1 for size, step in lengths]
    # Beyond the border the image is thought to go on: a dark voxel there is not the rim of a wide background.
    pieces, _ = label(grey_opening(dark, size=box, mode="nearest"))
    faces = [np.take(pieces, end, axis) for axis, size in enumerate(image.shape) if size > 1 for end in (0, -1)]
    outside = np.bincount(pieces.ravel()) >= SMALLEST * image.size
    outside[np.setdiff1d(pieces, np.concatenate([face.ravel() for face in faces]))] = False
    outside[0] = False
    inside = ~outside[pieces]
    pieces, count = label(inside)
    if count > 1:
        inside = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    if low == high or inside.mean() < SMALLEST:
        raise ValueError(
            f"the image is all background, its field of view would be {100 * inside.mean():.2g} % of it; "
            "give a mask, or set field_of_view to false"
        )
    return inside


class FieldOfViewMaskd(Transform):
    """Add ``fixed_mask`` and ``moving_mask`` derived from the images, where the pair has none (``field_of_view``)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Derive the masks of one pair from its images ``(1, *shape)``, as loaded.

        Raises:
            ValueError: naming the image that is all background.
        """
        output = dict(data)
        for side in SIDES:
            if f"{side}_mask" in data:
                continue
            image = data[f"{side}_image"]
            try:
                mask = field_of_view(image[0].numpy(), image.pixdim.tolist())
            except ValueError as error:
                raise ValueError(f"pair {data['pair_id']}: {side}_image: {error}") from error
            output[f"{side}_mask"] = MetaTensor(torch.as_tensor(mask)[None].float(), affine=image.affine)
        return output
