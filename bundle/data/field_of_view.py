"""The part of an image that its scanner saw: the mask of an ultrasound fan, derived from the image itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy.ndimage import grey_opening, label

from bundle.data.layouts import SIDES
from bundle.geometry import at_faces

BACKGROUND = 0.02
"""Background extends this far above the lowest intensity, as a share of the range to the 99.5th percentile: noise."""
OPENING = 2.0
"""mm; thinner dark structures at the edge of the fan do not belong to the background."""
SMALLEST = 0.005
"""Share of the image: a smaller piece of background is speckle, a smaller field of view was derived wrongly."""


def field_of_view(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Everything but the background that is connected to the border of the image.

    Background has the lowest intensity, is at least ``OPENING`` wide along every axis (a morphological opening with a
    box), and is connected to the border. The rest is the field of view, of which the largest connected piece is kept:
    it leaves out text beside the fan, and includes a dark cyst within it. A black shadow that is open to the border
    counts as background.

    Args:
        image: ``(X, Y, Z)``; one slice will do.
        spacing: distance between voxels along each axis, mm.

    Returns:
        Boolean mask of the same shape; all true for an image without background.

    Raises:
        ValueError: when hardly anything is left.
    """
    low, high = image.min(), np.percentile(image, 99.5)
    dark = (image <= low + BACKGROUND * (high - low)).astype(np.uint8)
    lengths = zip(image.shape, spacing, strict=True)
    box = [max(2, int(np.ceil(OPENING / step))) if size > 1 else 1 for size, step in lengths]
    # The image is taken to continue beyond its border: a dark voxel there is not the rim of a wide background.
    pieces, _ = label(grey_opening(dark, size=box, mode="nearest"))
    outside = np.bincount(pieces.ravel()) >= SMALLEST * image.size
    outside[np.setdiff1d(pieces, at_faces(torch.as_tensor(pieces)).numpy())] = False
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
    """Add ``fixed_mask`` and ``moving_mask`` derived from the images, if the pair has none (``field_of_view``)."""

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
