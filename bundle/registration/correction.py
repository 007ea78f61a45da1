"""What the DDF of a pair gets beyond the network's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bundle.data import split_pair
from bundle.geometry import Warp, compose, voxel_grid
from bundle.registration.losses import at_points, soft_centroids
from bundle.registration.overlap import chosen_maps

ROUNDS = 2
"""Of finding the volume of the organ: scaling moves its border over other displacements."""
LARGEST_SCALE = 1.15
"""Of a round, along every axis; half as much again in volume. Larger factors would be those of wrong maps."""


class FieldCorrection:
    """Errors of a network that can be seen without any label are taken out of its DDF ``f_theta(x)``.

    - A symmetric organ has no reason to move to the left rather than to the right. What the network does to one side
      and not to the other is halved: ``u = f_theta(x) + (M f_0(M x) - f_0(x)) / 2``, where ``M`` mirrors images and
      displacements and ``f_0`` is the network before the steps. So the start is the mean of both.
    - The maps of both images say where the organ is, and its centre of mass is the best known of all their points: the
      errors of the voxels cancel. A shift of the whole DDF takes the centre ``p`` of the fixed image to that of the
      moving one, ``u + m - p - u(p)``. It holds where the field of view cuts off the organ too.
    - So is its volume. At the start ``u`` is scaled about ``p``, ``u(p + q (x - p)) + (q - 1) (x - p)``, where ``q`` to
      the power of the dimensions is the volume of the warped map over that of the fixed one.
    - A landmark is a point that the start, which learned from labels, places better than the overlap of maps does. If a
      step moves it, ``u`` is pulled back around the centre ``c`` of its map in the fixed image, to where the start
      ``u_0`` took it: ``u + exp(-|x - c|^2 / 2 r^2) (u_0(c) - u(c))``.

    Neither shift nor scale bends the DDF. What is added at the start stays added, and what depends on a step is found
    anew after each, so the steps take no longer.

    Args:
        mirror_axis: spatial axis of the grid along which the anatomy is symmetric, for a network that was trained with
            mirrored pairs too; None for no mirror image.
        centred_maps: maps of the pair that together show the organ whose centres of mass are brought together; empty
            for none. If one of the images shows no voxel of it (above one half), nothing is shifted or scaled.
        equal_volumes: whether the organ is scaled too. Only where the same networks make the maps of both images: what
            two networks miss of an organ is not the same.
        held_maps: maps of the landmarks that stay where the start takes them; empty for none.
        held_radius: ``r``, voxels.
    """

    def __init__(
        self,
        mirror_axis: int | None = None,
        centred_maps: Sequence[int] = (),
        equal_volumes: bool = False,
        held_maps: Sequence[int] = (),
        held_radius: float = 4.0,
    ) -> None:
        self.mirror_axis = mirror_axis
        self.centred_maps = list(centred_maps)
        self.equal_volumes = equal_volumes
        self.held_maps = list(held_maps)
        self.held_radius = held_radius

    def __call__(self, network: nn.Module, pair: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The correction of a pair.

        Args:
            network: joined pair -> DDF, before the steps.
            pair: joined pair ``(batch, channels, *shape)``, with maps if their centres are asked for.

        Returns:
            DDF of the network ``(batch, dims, *shape)`` in voxels, at any step -> corrected DDF.

        Raises:
            ValueError: when the pair has no such map, or no such axis.
        """
        axes = range(pair.ndim - 2)
        if self.mirror_axis is not None and self.mirror_axis not in axes:
            raise ValueError(
                f"mirror_axis is {self.mirror_axis!r}; expected one of {', '.join(map(str, axes))}, or null"
            )
        with torch.no_grad():
            moving, fixed = split_pair(pair)
            organ = None
            if self.centred_maps:
                organ = Organ(*(self._maps(side, "centred_maps").sum(1, keepdim=True) for side in (moving, fixed)))
            # Where nothing depends on the start, the network need not run.
            needed = self.mirror_axis is not None or self.held_maps or (organ and self.equal_volumes)
            ddf = network(pair) if needed else pair.new_zeros(())
            added = self._added(network, pair, ddf, organ)

            def whole(ddf: torch.Tensor) -> torch.Tensor:
                return organ.centred(ddf + added) if organ else ddf + added

            if not self.held_maps:
                return whole
            held = Held(self._maps(fixed, "held_maps"), whole(ddf), self.held_radius)
        return lambda ddf: held.held(whole(ddf))

    def _added(self, network: nn.Module, pair: torch.Tensor, ddf: torch.Tensor, organ: Organ | None) -> torch.Tensor:
        """What mirror image and volumes add to the network's DDF of the start."""
        start = ddf
        if self.mirror_axis is not None:
            start = (ddf + mirrored(network, pair, self.mirror_axis)) / 2
        if organ and self.equal_volumes:
            for _ in range(ROUNDS):
                start = organ.scaled(organ.centred(start))
        return start - ddf

    def _maps(self, side: torch.Tensor, key: str) -> torch.Tensor:
        """The maps that a key names, ``(batch, maps, *shape)``; of a side's image, mask and maps."""
        return chosen_maps(side[:, 2:], getattr(self, key), key, "give map_weights, or [] for none")


class Organ:
    """An organ as the maps of both images of a pair show it.

    Args:
        moving: ``(batch, 1, *shape)`` in [0, 1].
        fixed: the same shape.
    """

    def __init__(self, moving: torch.Tensor, fixed: torch.Tensor) -> None:
        self.moving, self.fixed = moving, fixed
        seen = [organ.flatten(1).amax(1) > 0.5 for organ in (moving, fixed)]
        self.seen = (seen[0] & seen[1]).reshape(-1, *[1] * (fixed.ndim - 1))
        self.points = soft_centroids(fixed)
        self.wanted = soft_centroids(moving) - self.points

    def centred(self, ddf: torch.Tensor) -> torch.Tensor:
        """A DDF, shifted so that it takes the centre to the centre, ``(batch, dims, *shape)`` in voxels."""
        shift = _at_each_voxel((self.wanted - at_points(ddf, self.points))[:, 0], ddf)
        return ddf + torch.where(self.seen, shift, 0)

    def scaled(self, ddf: torch.Tensor) -> torch.Tensor:
        """A DDF, scaled about the centre towards equal volumes, ``(batch, dims, *shape)`` in voxels."""
        volumes = (organ.flatten(1).sum(1) for organ in (Warp()(self.moving, ddf), self.fixed))
        ratio = torch.div(*volumes).reshape(self.seen.shape)
        scale = (ratio ** (1 / ddf.shape[1])).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)
        return torch.where(self.seen, compose((scale - 1) * _from_point(self.points[:, 0], ddf), ddf), ddf)


class Held:
    """Landmarks that stay where the start takes them.

    Args:
        maps: heat maps in the fixed image ``(batch, landmarks, *shape)`` in [0, 1]. One that shows nothing (above one
            half) holds nothing.
        start: DDF of the start ``(batch, dims, *shape)``, voxels.
        radius: standard deviation of what is pulled back around each of them, voxels.
    """

    def __init__(self, maps: torch.Tensor, start: torch.Tensor, radius: float) -> None:
        self.points = soft_centroids(maps.square())
        self.wanted = at_points(start, self.points)
        distances = [_from_point(point, start).square().sum(1) for point in self.points.unbind(1)]
        seen = _at_each_voxel(maps.flatten(2).amax(2) > 0.5, maps)
        self.near = torch.exp(-torch.stack(distances, 1) / (2 * radius**2)) * seen

    def held(self, ddf: torch.Tensor) -> torch.Tensor:
        """A DDF, pulled back around the landmarks, ``(batch, dims, *shape)`` in voxels."""
        for landmark, near in enumerate(self.near.split(1, dim=1)):
            missed = self.wanted - at_points(ddf, self.points)
            ddf = ddf + near * _at_each_voxel(missed[:, landmark], ddf)
        return ddf


def _at_each_voxel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One value for each channel, ``(batch, channels)``, in a form that goes with ``(batch, channels, *shape)``."""
    return values.reshape(*like.shape[:2], *[1] * (like.ndim - 2))


def _from_point(point: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    """From a point ``(batch, dims)`` to each voxel of a DDF ``(batch, dims, *shape)``, voxels."""
    return voxel_grid(ddf.shape[2:], ddf.device).float() - _at_each_voxel(point, ddf)


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
