"""The network from an image to its maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn import functional as F

from bundle.geometry import LINEAR
from bundle.registration import CoarseNetwork, weights_of

FEWEST_LEVELS = 3
"""Fewest levels of MONAI's DynUNet."""
COARSEST = 1.5
"""Multiple of the spacing they were trained for up to which map networks work: training zooms its images as much."""
ADVICE = "cpu.yaml is for weights of 2.4 mm, and the preset of an organ comes last"


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
            mode = LINEAR[len(shape)]
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


def map_unet(spatial_dims: int, maps: int, filters: Sequence[int]) -> DynUNet:
    """MONAI's ``DynUNet`` from an image to logits of its maps: kernels of 3 voxels; every level halves the grid.

    Args:
        spatial_dims: 3, or 2 for slices.
        maps: number of maps.
        filters: channels of the levels, the finest first.

    Raises:
        ValueError: when there are fewer levels than MONAI's network has.
    """
    if not isinstance(filters, Sequence) or len(filters) < FEWEST_LEVELS:
        raise ValueError(f"filters is {filters!r}, expected channels of {FEWEST_LEVELS} levels or more: [16, 32, 64]")
    deeper = len(filters) - 1
    return DynUNet(
        spatial_dims=spatial_dims,
        in_channels=1,
        out_channels=maps,
        kernel_size=[3] * len(filters),
        strides=[1] + [2] * deeper,
        upsample_kernel_size=[2] * deeper,
        filters=list(filters),
    )


def read_map_network(
    path: str,
    maps: int,
    spatial_dims: int = 3,
    precision: str = "float32",
    map_pixdim: float = 1.0,
    pixdim: float = 1.0,
) -> MapNetwork:
    """The map network of a file of weights, with as many levels and channels as the weights have.

    Args:
        path: flat weights of a ``map_unet``, such as maps.yaml trains.
        maps: number of maps that it must make.
        spatial_dims: 3, or 2 for slices.
        precision: as in ``MapNetwork``.
        map_pixdim: spacing (mm) that it was trained for; it sees averages of as many voxels as come closest.
        pixdim: spacing (mm) of the images that it is given.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it does not hold the weights of such a network, or they cannot see the spacing they know.
    """
    downsampling = max(1, round(map_pixdim / pixdim))
    if _differ(pixdim * downsampling, map_pixdim):
        raise ValueError(
            f"the map networks know a spacing of {map_pixdim:g} mm (map_pixdim), and the images' is {pixdim:g} mm "
            f"(pixdim); expected {COARSEST * map_pixdim:.3g} mm at most: {ADVICE}"
        )
    with weights_of(path) as state:
        filters = _filters(state)
        network = map_unet(spatial_dims, maps, filters)
        network.load_state_dict(state)
    return MapNetwork(network, precision, downsampling, 2 ** (len(filters) - 1))


def check_spacing(seen: float, known: float) -> None:
    """Refuse a spacing that is far from what the weights in ``models/`` were trained on, which is that of their maps.

    Args:
        seen: spacing (mm) that the registration network would see.
        known: spacing (mm) that it knows.

    Raises:
        ValueError: when they differ by more than a factor of ``COARSEST``.
    """
    if _differ(seen, known):
        raise ValueError(
            f"the network would see {seen:g} mm (pixdim x downsampling), and the weights in models/ know {known:g} mm; "
            f"give weights of that spacing (--weights): {ADVICE}"
        )


def _differ(seen: float, known: float) -> bool:
    """Whether two spacings differ by more than a factor of ``COARSEST``, but for the rounding of their quotient."""
    return max(seen / known, known / seen) > COARSEST + 1e-6


def _filters(state: Mapping[str, torch.Tensor]) -> list[int]:
    """Channels of the levels of a ``DynUNet``, three at least; 1 where these are weights of something else."""
    deeper = sum(f"downsamples.{level}.conv1.conv.weight" in state for level in range(len(state)))
    levels = ["input_block", *(f"downsamples.{level}" for level in range(max(deeper, 1))), "bottleneck"]
    first = (state.get(f"{level}.conv1.conv.weight") for level in levels)
    return [1 if weight is None else len(weight) for weight in first]
