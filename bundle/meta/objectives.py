"""The outer loss around the network: both directions of a pair at once."""

from __future__ import annotations

import torch
from torch import nn

from bundle.data import join_pair, split_pair
from bundle.geometry import compose
from bundle.registration import ResidualField


class SymmetricObjective(nn.Module):
    """``L = (l(u_ab; a -> b) + l(u_ba; b -> a)) / 2 + w mean_x |u_ab(x) + u_ba(x + u_ab(x))|^2``.

    ``u_ab`` is the network's field for the pair, ``u_ba`` its field for the swapped pair, where images, masks and
    labels change sides together. The last term is in squared voxels of the pair's grid, and 0 where one field is the
    inverse of the other.

    Args:
        loss: ``l``, ``(ddf, pair, labels) -> terms`` with the total under ``"loss"``.
        inverse_consistency_weight: ``w``.
    """

    def __init__(self, loss: nn.Module, inverse_consistency_weight: float = 0.0) -> None:
        super().__init__()
        self.loss = loss
        self.inverse_consistency_weight = inverse_consistency_weight

    def forward(
        self, network: nn.Module, pair: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Evaluate the network on a pair in both directions.

        Args:
            network: joined pair -> DDF.
            pair: joined images, ``(batch, 2 * channels, *shape)``.
            labels: joined labels ``(batch, 2 * structures, *shape)``; needed by a label term only.

        Returns:
            Scalars ``loss`` and ``inverse_consistency``, and the means of the other terms over the directions.

        Raises:
            ValueError: when the steps move a residual field, which belongs to one direction.
        """
        if isinstance(network, ResidualField):
            raise ValueError("symmetric is true, but a residual field belongs to one direction of a pair; set it false")
        swapped, swapped_labels = turned(pair), None if labels is None else turned(labels)
        forth, back = network(pair), network(swapped)
        both = self.loss(forth, pair, labels), self.loss(back, swapped, swapped_labels)
        terms = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        terms["inverse_consistency"] = compose(forth, back).square().sum(1).mean()
        return {**terms, "loss": terms["loss"] + self.inverse_consistency_weight * terms["inverse_consistency"]}


def turned(joined: torch.Tensor) -> torch.Tensor:
    """A joined pair (or its labels) with the two sides swapped."""
    moving, fixed = split_pair(joined)
    return join_pair(fixed, moving)
