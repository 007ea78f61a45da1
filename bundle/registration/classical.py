"""Iterative registration without a network: the papers' classical comparison (Baum et al. 2022, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from bundle.registration.adaptation import OptimizerFactory


class DisplacementField(nn.Module):
    """A "network" whose only weights are the DDF itself, zero at the start.

    Args:
        shape: spatial shape of the pair.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.ddf = nn.Parameter(torch.zeros(1, len(shape), *shape))

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """The field, ``(batch, dims, *shape)`` in voxels, whatever the pairs ``(batch, 2, *shape)`` show."""
        # A copy: a view of a weight would ask for gradients wherever it is made.
        return torch.cat([self.ddf] * len(pair))


def per_sum(optimizer: OptimizerFactory, voxels: int) -> OptimizerFactory:
    """The same optimiser for a loss summed over the voxels: its learning rate times ``voxels``.

    The losses of this bundle are means over the voxels, so their gradient at one voxel shrinks as the grid grows; the
    learning rate of a field, such as the paper's 0.01, is one of the sum. Its steps converge while ``lr * c < 2`` with
    ``c`` the largest curvature of the sum. That of MONAI's bending energy, whose second differences weigh the finest
    ripple by 4 along every axis, is ``32 * weight`` (and a tenth more, since the energy is a mean over the voxels
    inside); similarities of images in [0, 1] add 3 (squares) to 70 (local correlation). So 0.01 diverges from a weight
    of about 5; the stencil of DeepReg, on which the paper builds, has ``6 * weight`` and bears its 10.

    Args:
        optimizer: named parameters -> optimiser whose step is linear in its gradient (SGD).
        voxels: number of voxels of the grid.
    """

    def scaled(parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        stepper = optimizer(parameters)
        for group in stepper.param_groups:
            group["lr"] *= voxels
        return stepper

    return scaled
