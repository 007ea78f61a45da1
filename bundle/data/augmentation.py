"""Versions of a pair for the inner steps: every image under a random affine of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.utils import to_norm_affine
from monai.transforms import RandAffineGrid
from torch.nn import functional as F

from bundle.data.pairs import join_pair, split_pair

SLABS = 8
"""Parts of a volume that are interpolated side by side: torch uses one core per volume."""


class RandomPairAffine:
    """A mini-batch of versions of one pair (Baum et al. 2022, section 3.1).

    The moving and the fixed image are transformed independently, image, mask and label together, about the centre of
    the volume, without flips; beyond the volume its border is repeated, since a black rim would be an edge to match.
    All versions are interpolated at once on the pair's device.

    Args:
        versions: mini-batch size; 4 in the paper.
        rotate_range: rotation about every axis, uniform in +-range, radians.
        translate_range: shift along every axis, uniform in +-range, voxels of the pair's grid.
        scale_range: relative scaling along every axis, uniform in 1 +- range.
        shear_range: shear factors, uniform in +-range.
    """

    def __init__(
        self,
        versions: int = 4,
        rotate_range: float = 0.1,
        translate_range: float = 5.0,
        scale_range: float = 0.1,
        shear_range: float = 0.05,
    ) -> None:
        if versions < 1:
            raise ValueError(f"versions is {versions}; expected 1 or more per mini-batch")
        self.versions = versions
        self.ranges = {
            "rotate_range": rotate_range,
            "translate_range": translate_range,
            "scale_range": scale_range,
            "shear_range": shear_range,
        }

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
        warped = [self._warp(side, self.matrices(side.shape[2:], random).to(side.device)) for side in sides]
        images = join_pair(*[side[:, :channels] for side in warped])
        return images, None if labels is None else join_pair(*[side[:, channels:] for side in warped])

    def _warp(self, image: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """An image ``(1, channels, *shape)`` under ``(versions, ...)`` affines: ``(versions, channels, *shape)``.

        Slab ``s`` of the first axis is the image under the affine that begins at its first voxel, ``A T(s)``.
        """
        length, *others = image.shape[2:]
        slabs = math.gcd(length, SLABS)
        starts = torch.eye(len(image.shape) - 1).repeat(slabs, 1, 1).to(matrices)
        starts[:, 0, -1] = torch.arange(slabs).to(matrices) * (length // slabs)
        each = (matrices[:, None] @ starts).flatten(0, 1)
        size = [len(each), image.shape[1], length // slabs, *others]
        normalised = to_norm_affine(each, image.shape[2:], size[2:], align_corners=True)
        # torch counts the last axis first.
        axes = [*reversed(range(len(size) - 2)), -1]
        grid = F.affine_grid(normalised[:, axes[:-1]][:, :, axes], size, align_corners=True)
        # MONAI's AffineTransform would copy the image for every slab.
        warped = F.grid_sample(
            image.expand(len(each), *image.shape[1:]), grid, padding_mode="border", align_corners=True
        )
        return warped.unflatten(0, (-1, slabs)).movedim(1, 2).flatten(2, 3)
