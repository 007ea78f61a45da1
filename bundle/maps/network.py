"""The network from an image to its maps."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bundle.registration import CoarseNetwork


class MapNetwork(CoarseNetwork):
    """Image -> logits of its maps, ``maps = sigmoid(f(image))``; arguments are those of ``CoarseNetwork``.

    Where it sees averages, its logits are interpolated back to the grid of the image.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(batch, 1, *shape)`` -> ``(batch, structures, *shape)``; the shape is a multiple of ``downsampling``."""
        logits = self.coarse(image)
        if self.downsampling == 1:
            return logits
        mode = "trilinear" if image.ndim == 5 else "bilinear"
        return F.interpolate(logits, scale_factor=self.downsampling, mode=mode, align_corners=False)
