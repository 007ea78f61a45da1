"""The network from an image to its maps."""

from __future__ import annotations

import math

import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn import functional as F

from bundle.registration import CoarseNetwork


class MapNetwork(CoarseNetwork):
    """Image -> logits of its maps, ``maps = sigmoid(f(image))``.

    If it sees averages, its logits are interpolated back to the grid of the image.

    Args:
        network: as in ``CoarseNetwork``.
        precision: as in ``CoarseNetwork``.
        downsampling: as in ``CoarseNetwork``.
        size_divisor: the grid that the network sees is padded to a multiple, repeating its border; 2 ** (depth).
    """

    def __init__(
        self, network: nn.Module, precision: str = "float32", downsampling: int = 1, size_divisor: int = 1
    ) -> None:
        super().__init__(network, precision, downsampling)
        self.size_divisor = size_divisor
        # MONAI's DynUNet holds random numbers where its deep supervision goes: no two runs would have one network.
        if isinstance(network, DynUNet):
            network.heads[:] = [torch.zeros(1)] * len(network.heads)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(batch, 1, *shape)`` -> ``(batch, structures, *shape)``."""
        shape = image.shape[2:]
        padded = F.pad(image, self._missing(shape), mode="replicate")
        logits = self.coarse(padded)
        if self.downsampling > 1:
            mode = "trilinear" if image.ndim == 5 else "bilinear"
            logits = F.interpolate(logits, scale_factor=self.downsampling, mode=mode, align_corners=False)
        for axis, length in enumerate(shape, start=2):
            logits = logits.narrow(axis, 0, length)
        return logits

    def _missing(self, shape: torch.Size) -> list[int]:
        """Voxels to add at the end of each axis, as ``torch.nn.functional.pad`` takes them: the last axis first."""
        multiple = self.downsampling * self.size_divisor
        return [part for length in reversed(shape) for part in (0, -length % multiple)]


def start_rare(network: nn.Module, share: float = 0.01) -> None:
    """Let a new network expect structures in a small share of the voxels: ``bias = log(share / (1 - share))``.

    If it started from 0.5 everywhere, it would first learn that most of an image is background, which takes as long as
    all the rest (Lin et al. 2017, Focal Loss, section 3.3).

    Args:
        network: a network whose last bias is that of the logits.
        share: share of the voxels.
    """
    *_, bias = (parameter for name, parameter in network.named_parameters() if name.endswith("bias"))
    nn.init.constant_(bias, math.log(share / (1 - share)))
