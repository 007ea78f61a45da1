"""A coarse displacement, added to the network's, that the steps on a pair can move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from bundle.geometry import LINEAR
from bundle.registration.adaptation import OptimizerFactory
from bundle.registration.moving import moved_names


class ResidualField(nn.Module):
    """Joined pair -> DDF, ``u = f(moving, fixed) + U(c)`` with ``c = 0`` at the start of every pair.

    ``U`` interpolates displacements ``c`` linearly from a grid of control points; the outermost control points lie on
    the outermost voxels. Nothing of ``c`` is learned: it requires no gradients until ``Moving`` selects it, so that
    meta-updates leave it at zero and change the weights of ``f``. If these weights stay fixed, the network runs once
    per pair: their gradients are not needed, and its output stays the same.

    Args:
        network: joined pair -> DDF.
        control_points: their number along every axis, such as ``(6, 7, 6)``.

    Attributes:
        residual: ``c``, ``(1, dims, *control_points)``, voxels of the pair's grid.
    """

    def __init__(self, network: nn.Module, control_points: Sequence[int]) -> None:
        super().__init__()
        dims = len(control_points)
        if dims not in LINEAR:
            raise ValueError(f"control_points is {list(control_points)}; expected a number for each of 2 or 3 axes")
        self.network = network
        self.control_points = tuple(control_points)
        self.residual = nn.Parameter(torch.zeros(1, dims, *control_points), requires_grad=False)
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """Predict the DDF.

        Args:
            pair: input of the network, ``(batch, channels, *shape)``.

        Returns:
            ``(batch, dims, *shape)``, voxels of the pair's grid.

        Raises:
            ValueError: when the pair has another number of axes than the control points.
        """
        if len(self.control_points) != pair.ndim - 2:
            found, axes = list(self.control_points), pair.ndim - 2
            raise ValueError(f"control_points is {found}; expected a number for each of the {axes} axes of the pair")
        ddf = self._predicted(pair)
        mode = LINEAR[self.residual.shape[1]]
        return ddf + F.interpolate(self.residual, size=ddf.shape[2:], mode=mode, align_corners=True)

    def _predicted(self, pair: torch.Tensor) -> torch.Tensor:
        """The network's DDF, cached for the last pair while the weights stay fixed."""
        weights = self.network.parameters()
        still = self.residual.requires_grad and not any(weight.requires_grad for weight in weights)
        if self._known is not None and self._known[0] is pair and (still or not torch.is_grad_enabled()):
            return self._known[1]
        ddf = self.network(pair)
        self._known = (pair, ddf) if still else None
        return ddf


def check_moved(network: ResidualField, optimizer: OptimizerFactory) -> None:
    """Refuse a residual field that the steps would leave at zero.

    Args:
        network: the network with the field.
        optimizer: named parameters -> optimiser of the steps.

    Raises:
        ValueError: saying what they move in its place.
    """
    moved = moved_names(network, optimizer)
    if "residual" not in moved:
        raise ValueError(
            f"control_points is given, and inner_optimizer moves {len(moved)} weights in place of that field; set "
            "control_points to null, or leave out the overlay that moves weights (named_layers.yaml, step_sizes.yaml)"
        )
