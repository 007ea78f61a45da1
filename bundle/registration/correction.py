"""What the DDF of a pair gets beyond the network's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bundle.data import split_pair
from bundle.registration.losses import at_points, soft_centroids


class FieldCorrection:
    """Errors of a network that can be seen without any label are taken out of its DDF ``f_theta(x)``.

    - A symmetric organ has no reason to move to the left rather than to the right. What the network does to one side
      and not to the other is halved: ``u = f_theta(x) + (M f_0(M x) - f_0(x)) / 2``, where ``M`` mirrors images and
      displacements and ``f_0`` is the network before the steps. So the start is the mean of both, and the steps, which
      move ``theta``, take no longer.
    - The maps of both images say where the organ is, and its centre of mass is the best known of all their points: the
      errors of the voxels cancel. A shift of the whole DDF takes the centre ``p`` of the fixed image to that of the
      moving one, ``u + m - p - u(p)``. It bends nothing, and holds where the field of view cuts off the organ too.

    Args:
        mirror_axis: spatial axis of the grid along which the anatomy is symmetric, for a network that was trained with
            mirrored pairs too; None for no mirror image.
        centred_maps: maps of the pair that together show the organ whose centres of mass are brought together; empty
            for none. If one of the images shows no voxel of it (above one half), nothing is shifted.
    """

    def __init__(self, mirror_axis: int | None = None, centred_maps: Sequence[int] = ()) -> None:
        self.mirror_axis = mirror_axis
        self.centred_maps = list(centred_maps)

    def __call__(self, network: nn.Module, pair: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The correction of a pair.

        Args:
            network: joined pair -> DDF, before the steps.
            pair: joined pair ``(batch, channels, *shape)``, with maps if their centres are asked for.

        Returns:
            DDF of the network ``(batch, dims, *shape)`` in voxels, at any step -> corrected DDF.

        Raises:
            ValueError: when the pair has no such map.
        """
        with torch.no_grad():
            added = pair.new_zeros(1)
            if self.mirror_axis is not None:
                added = (mirrored(network, pair, self.mirror_axis) - network(pair)) / 2
            centred = self._centring(pair) if self.centred_maps else lambda ddf: ddf
        return lambda ddf: centred(ddf + added)

    def _centring(self, pair: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The shift that brings the centres together, of any DDF."""
        moving, fixed = (self._organ(side) for side in split_pair(pair))
        seen = [organ.flatten(1).amax(1) > 0.5 for organ in (moving, fixed)]
        points = soft_centroids(fixed)
        wanted = soft_centroids(moving) - points

        def centred(ddf: torch.Tensor) -> torch.Tensor:
            shift = torch.where((seen[0] & seen[1])[:, None], (wanted - at_points(ddf, points))[:, 0], 0)
            return ddf + shift.reshape(*shift.shape, *[1] * (ddf.ndim - 2))

        return centred

    def _organ(self, side: torch.Tensor) -> torch.Tensor:
        """Sum of the maps that show it, ``(batch, 1, *shape)``; of a side's image, mask and maps."""
        maps = side[:, 2:]
        if maps.shape[1] <= max(self.centred_maps):
            raise ValueError(
                f"centred_maps is {self.centred_maps} and the pair has {maps.shape[1]} maps, counted from 0; give "
                "map_weights, or [] for no shift of the start"
            )
        return maps[:, self.centred_maps].sum(1, keepdim=True)


def mirrored(network: nn.Module, pair: torch.Tensor, axis: int) -> torch.Tensor:
    """DDF of the mirror image of a pair, mirrored back.

    Args:
        network: joined pair -> DDF.
        pair: joined pair ``(batch, channels, *shape)``.
        axis: spatial axis along which both are mirrored.

    Returns:
        ``(batch, dims, *shape)``, voxels.
    """
    ddf = network(pair.flip(2 + axis)).flip(2 + axis)
    ddf[:, axis].neg_()
    return ddf
