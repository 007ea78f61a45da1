"""Whether an inferer registers a swapped pair the other way, and an image to itself not at all."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from bundle.data import join_pair, split_pair

MOVING, FIXED = 0, 1
"""Sides of a joined pair, in their order."""


class ConsistencyInferer(Inferer):
    """Register a pair as another inferer does, and with the same network what says whether its answers fit together.

    The swapped pair, moving and fixed changing places, should get the inverse; the fixed image on both sides should
    stay where it is. Either costs as much as the registration; their times and losses are not those of the pair.

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
            args: of the inferer.
            labels: joined labels ``(batch, 2 * structures, *shape)`` of an inferer that adapts to them; they change
                places with the images.
            kwargs: of the inferer.

        Returns:
            What the inferer finds; ``swapped_ddf`` of the swapped pair and ``self_ddf`` of the fixed image to itself,
            ``(batch, dims, *shape)``, voxels, where they are asked for.
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
