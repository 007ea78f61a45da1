"""Versions of a pair for the inner steps: every image with its own random transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms import RandAffineGrid, RandomizableTransform
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from bundle.data.pairs import join_pair, split_pair
from bundle.geometry import LINEAR

ELASTIC_POINTS = 5
SLABS = 8
"""Parts of a volume that are interpolated in parallel: torch uses one core per volume."""


class RandomPairAffine:
    """A mini-batch of versions of one pair (Baum et al. 2022, section 3.1).

    The moving and the fixed side are transformed independently, each with its image, mask, maps and label together,
    about the centre of the volume. Beyond the volume its border is repeated, since a black rim would be an edge to
    match. All versions are interpolated at once on the pair's device. The paper's versions are affine; elastic
    deformation, mirroring (of both images at once) and changed intensities (of the images alone) are optional.

    Args:
        versions: mini-batch size; 4 in the paper.
        rotate_range: rotation about every axis, uniform in +-range, radians.
        translate_range: shift along every axis, uniform in +-range, voxels of the pair's grid.
        scale_range: relative scaling along every axis, uniform in 1 +- range.
        zoom: largest factor by which an image grows or shrinks as a whole, log-uniform in [1 / zoom, zoom]; 1: none.
            Organs of one cohort differ more in size than in shape.
        shear_range: shear factors, uniform in +-range.
        elastic: standard deviation of a smooth random displacement, uniform in [0, elastic], voxels; it is drawn at
            ``ELASTIC_POINTS`` along every axis and interpolated between them.
        flip_axis: spatial axis along which half of the versions are mirrored, for symmetric anatomy; None: none.
        intensities: transforms of an image ``(1, *shape)``, such as ``monai.transforms.RandAdjustContrast``, applied to
            each image separately.
    """

    def __init__(
        self,
        versions: int = 4,
        rotate_range: float = 0.1,
        translate_range: float = 5.0,
        scale_range: float = 0.1,
        zoom: float = 1.0,
        shear_range: float = 0.05,
        elastic: float = 0.0,
        flip_axis: int | None = None,
        intensities: Sequence[RandomizableTransform] = (),
    ) -> None:
        if versions < 1:
            raise ValueError(f"versions is {versions}; expected 1 or more per mini-batch")
        if zoom < 1:
            raise ValueError(f"zoom is {zoom}; expected 1 (none) or more")
        self.versions = versions
        self.ranges = {
            "rotate_range": rotate_range,
            "translate_range": translate_range,
            "scale_range": scale_range,
            "shear_range": shear_range,
        }
        self.zoom = zoom
        self.elastic = elastic
        self.flip_axis = flip_axis
        self.intensities = intensities

    def matrices(self, shape: Sequence[int], random: np.random.RandomState) -> torch.Tensor:
        """Draw one affine per version, ``(versions, dims + 1, dims + 1)``: output voxel to input voxel of a grid.

        Args:
            shape: spatial shape of the grid; rotation, scaling and shear are about its centre.
            random: source of randomness.
        """
        dims = len(shape)
        centre, origin = torch.eye(dims + 1), torch.eye(dims + 1)
        centre[:-1, -1] = (torch.tensor(shape) - 1) / 2
        origin[:-1, -1] = -centre[:-1, -1]
        shears = dims * (dims - 1)
        ranges = {
            name: [value] * {"shear_range": shears, "rotate_range": 3 if dims == 3 else 1}.get(name, dims)
            for name, value in self.ranges.items()
        }
        grid = RandAffineGrid(**ranges).set_random_state(state=random)
        drawn = []
        for _ in range(self.versions):
            grid(spatial_size=[1] * dims)
            matrix = torch.as_tensor(grid.get_transformation_matrix(), dtype=torch.float32)
            if self.zoom > 1:
                matrix[:-1, :-1] *= self.zoom ** random.uniform(-1, 1)
            drawn.append(centre @ matrix @ origin)
        return torch.stack(drawn)

    def __call__(
        self, pair: torch.Tensor, labels: torch.Tensor | None, seed: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw one mini-batch.

        Args:
            pair: joined images ``(1, 2, *shape)``, or ``(1, 4, *shape)`` with masks.
            labels: joined labels ``(1, 2 * structures, *shape)`` or None.
            seed: non-negative integers that determine the mini-batch, such as (seed, iteration, episode, step).

        Returns:
            Images ``(versions, 2, *shape)`` (with masks 4) and labels ``(versions, 2 * structures, *shape)`` or None.
        """
        random = np.random.RandomState(np.random.SeedSequence(list(seed)).generate_state(8))
        sides = list(split_pair(pair))
        channels = sides[0].shape[1]
        if labels is not None:
            sides = [torch.cat(parts, dim=1) for parts in zip(sides, split_pair(labels), strict=True)]
        mirrored = None
        if self.flip_axis is not None:
            mirrored = torch.as_tensor(random.uniform(size=self.versions) < 0.5).to(pair.device)
        warped = []
        for side in sides:
            matrices = self.matrices(side.shape[2:], random).to(side.device)
            side = self._warp(side, matrices, self._displacement(side.shape[2:], random).to(side.device))
            if self.flip_axis is not None and mirrored is not None:
                chosen = mirrored.reshape(-1, *[1] * (side.ndim - 1))
                side = torch.where(chosen, side.flip(2 + self.flip_axis), side)
            warped.append(self._with_intensities(side, random))
        images = join_pair(*[side[:, :channels] for side in warped])
        return images, None if labels is None else join_pair(*[side[:, channels:] for side in warped])

    def _displacement(self, shape: Sequence[int], random: np.random.RandomState) -> torch.Tensor:
        """Elastic displacement of every version, ``(versions, dims, *shape)`` in voxels; ``(versions, 0)`` if none."""
        if not self.elastic:
            return torch.empty(self.versions, 0)
        dims = len(shape)
        points = [self.versions, dims, *[ELASTIC_POINTS] * dims]
        strength = random.uniform(0, self.elastic, size=[self.versions, *[1] * (dims + 1)])
        drawn = torch.as_tensor(strength * random.normal(size=points), dtype=torch.float32)
        return F.interpolate(drawn, size=tuple(shape), mode=LINEAR[dims], align_corners=True)

    def _with_intensities(self, side: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
        """Versions ``(versions, channels, *shape)`` of a side, with changed intensities in their first channel."""
        if not self.intensities:
            return side
        images = []
        for version in side:
            image = version[:1]
            for transform in self.intensities:
                transform.set_random_state(state=random)
                image = transform(image)
            # MONAI's transforms give tensors that track metadata, in every operation of the steps.
            images.append(convert_to_tensor(image, track_meta=False))
        return torch.cat([torch.stack(images), side[:, 1:]], dim=1)

    def _warp(self, image: torch.Tensor, matrices: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
        """An image ``(1, channels, *shape)`` under ``(versions, ...)`` affines: ``(versions, channels, *shape)``.

        Voxel ``v`` is sampled at ``sum_a A[:, a] v_a + t``, plus an elastic displacement. The terms of the axes are
        added by broadcasting: a matrix product for every voxel, as in ``affine_grid``, takes as long as the sampling.
        """
        shape = image.shape[2:]
        dims, slabs = len(shape), math.gcd(shape[0], SLABS)
        # In torch's units, [-1, 1] from the first voxel's centre to the last one's, and its order, the last axis first.
        halves = matrices.new_tensor([max(length - 1, 1) / 2 for length in shape])
        affines = (matrices[:, :-1] / halves[:, None]).flip(1)
        grid = affines[..., -1].reshape(-1, *[1] * dims, dims) - 1
        # The last axis first: only the last sum is over all voxels.
        for axis in reversed(range(dims)):
            places = torch.arange(shape[axis]).to(matrices).reshape(-1, *[1] * (dims - axis))
            grid = grid + places * affines[..., axis].reshape(-1, *[1] * dims, dims)
        if displacement.shape[1]:
            grid = grid + (displacement.movedim(1, -1) / halves).flip(-1)
        grid = grid.unflatten(1, (slabs, -1)).flatten(0, 1)
        # MONAI's AffineTransform would copy the image for every slab.
        warped = F.grid_sample(
            image.expand(len(grid), *image.shape[1:]), grid, padding_mode="border", align_corners=True
        )
        return warped.unflatten(0, (-1, slabs)).movedim(1, 2).flatten(2, 3)
