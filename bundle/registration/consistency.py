"""Tests of an inferer: a swapped pair should get the inverse, and an image registered to itself should not move."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from bundle.data import join_pair, split_pair

MOVING, FIXED = 0, 1
"""Sides of a joined pair, in their order."""


class ConsistencyInferer(Inferer):
    """Register a pair as another inferer does, and run the same network on pairs that test its consistency.

    The swapped pair, with moving and fixed exchanged, should get the inverse. The fixed image on both sides should stay
    where it is. Each test costs as much as the registration; the pair's times and losses do not include them.

    Args:
        inferer: a joined pair and a network -> ``ddf`` and whatever else it finds.
        inverse_consistency: register the swapped pair, too.
        self_registration: register the fixed image to itself, too.
    """

    def __init__(self, inferer: Inferer, inverse_consistency: bool, self_registration: bool) -> None:
        super().__init__()
        self.inferer = inferer
        self.inverse_consistency = inverse_consistency
        self.self_registration = self_registration

    def __call__(
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        *args: Any,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Register a batch of pairs.

        Args:
            inputs: joined pairs ``(batch, 2 * channels, *shape)``.
            network: joined pair -> DDF.
            args: passed to the inferer.
            labels: joined labels ``(batch, 2 * structures, *shape)`` for an inferer that adapts to them; they are
                swapped with the images.
            kwargs: passed to the inferer.

        Returns:
            The inferer's outputs and, if asked for, ``swapped_ddf`` of the swapped pair and ``self_ddf`` of the fixed
            image to itself, ``(batch, dims, *shape)``, voxels.
        """

        def registered(moving: int, fixed: int) -> dict[str, torch.Tensor]:
            def sides(joined: torch.Tensor) -> torch.Tensor:
                split = split_pair(joined)
                return join_pair(split[moving], split[fixed])

            own = {} if labels is None else {"labels": sides(labels)}
            return self.inferer(sides(inputs), network, *args, **own, **kwargs)

        found = registered(MOVING, FIXED)
        if self.inverse_consistency:
            found["swapped_ddf"] = registered(FIXED, MOVING)["ddf"]
        if self.self_registration:
            found["self_ddf"] = registered(FIXED, FIXED)["ddf"]
        return found
