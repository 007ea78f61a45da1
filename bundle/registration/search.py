"""Which displacement makes the surroundings of each voxel most alike: a search, where gradients see too little."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from torch.nn import functional as F

from bundle.data import split_pair
from bundle.geometry import LINEAR, Warp, averages, compose, enlarge_ddf
from bundle.registration.adaptation import one_by_one

REACH = 3
"""Coarse voxels that a displacement reaches, about: the number of displacements grows with its cube."""
STRIDE = 2
"""Coarse voxels between two places for which a displacement is searched."""
STIFFNESS = (0.003, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Weights of the distance to the smooth field, by round (Siebert et al. 2021); the first keeps equal costs at rest."""
CONSTANT = 1e-4
"""Difference of intensities in [0, 1] up to which they are the same: what rounding leaves of it is no texture."""
SHARE = 0.5
"""Of the way to what is found: the mean of two estimates, whose errors have little to do with each other."""
AGREEMENT = 0.25
"""Of the reach: the largest disagreement of the two searches that is followed. Chance leads to half of the reach."""


class DisplacementSearch(nn.Module):
    """Move a DDF ``u`` half of the way to the displacements under which the two images look most alike, if any are.

    Every place of a coarse grid tries all displacements ``d`` up to a reach. Their cost is the difference of
    self-similarities, of which each voxel has a few (``self_similarities``), between the fixed image and the moving one
    warped by ``u``. A smooth field ``s`` follows by coupled convex optimisation (Heinrich et al. 2014; Siebert et al.
    2021, ConvexAdam), in rounds of rising stiffness ``t``::

        d_i = argmin_d cost_i(d) + t |d - s_i|^2,    s = mean of d over the neighbours

    It needs neither labels nor a gradient. Where images of one modality show the same tissue, as in two scans of a
    patient, it finds what inside an organ belongs together; between patients it would follow chance. Which of the two
    holds shows when the moving image is searched in the fixed one, too: ``e``. The two disagree by the mean of
    ``|d(x) + e(x + d(x))|`` over the voxels inside, weighted by the maps of the fixed image if there are any; above
    ``AGREEMENT`` of the reach, ``u`` stays as it is.

    Args:
        reach_mm: largest displacement along every axis; rounded to whole coarse voxels, about a third of it each.
        pixdim: mm, spacing of the grid of the pair.

    Raises:
        ValueError: when the reach is no voxel.
    """

    def __init__(self, reach_mm: float, pixdim: float) -> None:
        super().__init__()
        self.pixdim = pixdim
        self.downsampling = max(1, round(reach_mm / REACH / pixdim))
        self.reach = round(reach_mm / (pixdim * self.downsampling))
        if self.reach < 1:
            raise ValueError(f"search_mm is {reach_mm:g}; expected {pixdim:g} (a voxel) or more, or null")

    def forward(self, pair: torch.Tensor, ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Search on from a DDF.

        Args:
            pair: joined pair ``(batch, channels, *shape)``: of each side the image, its mask and its maps, if there
                are any.
            ddf: ``(batch, dims, *shape)``, voxels.

        Returns:
            The DDF after the search, ``(batch, dims, *shape)`` in voxels, which is the given tensor where no search is
            followed, and by how many mm the two searches of each pair disagree, ``(batch,)``.
        """
        moving, fixed = split_pair(pair)
        moving, fixed = self._coarse(moving[:, :2]), self._coarse(fixed)
        moving = Warp()(moving, self._coarse(ddf) / self.downsampling)
        seen = [self_similarities(side[:, :1]) for side in (fixed, moving)]
        inside = moving[:, 1:] * fixed[:, 1:2] if fixed.shape[1] > 1 else torch.ones_like(fixed)
        forth, back = (
            torch.stack([self._search(*images) for images in zip(*sides, inside, strict=True)])
            for sides in (seen, seen[::-1])
        )
        weight = inside * fixed[:, 2:].sum(1, keepdim=True) if fixed.shape[1] > 2 else inside
        apart = compose(forth, back).norm(dim=1, keepdim=True)
        disagreement = (weight * apart).flatten(1).sum(1) / weight.flatten(1).sum(1)
        followed = disagreement <= AGREEMENT * self.reach
        if followed.any():
            fine = enlarge_ddf(forth, self.downsampling)
            for axis, length in enumerate(ddf.shape[2:], start=2):
                fine = fine.narrow(axis, 0, length)
            share = SHARE * followed.reshape(-1, *[1] * (ddf.ndim - 1))
            ddf = ddf + share * (compose(fine, ddf) - ddf)
        return ddf, disagreement * self.downsampling * self.pixdim

    def _coarse(self, images: torch.Tensor) -> torch.Tensor:
        """Averages over cubes; the last of an axis may be of fewer voxels."""
        return images if self.downsampling == 1 else averages(images, self.downsampling, ceil_mode=True)

    def _search(self, fixed: torch.Tensor, moving: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Displacements ``(dims, *shape)`` of the coarse voxels, for self-similarities ``(channels, *shape)``."""
        shape, dims, reach = fixed.shape[1:], fixed.ndim - 1, self.reach
        stride = [min(STRIDE, length) for length in shape]
        # Averages at every voxel, of which each displacement takes every second one.
        near = F.pad(moving[None], [reach] * 2 * dims, mode="replicate")
        near, target, weight = (averages(images, stride, 1)[0] for images in (near, fixed[None], inside[None]))
        every = (slice(None), *(slice(0, None, step) for step in stride))
        target, weight = target[every], weight[every]
        # Of every second voxel, in the order of the memory: a step over voxels would take twice as long.
        lattices = {
            first: near[(slice(None), *map(slice, first, [None] * dims, stride))].contiguous()
            for first in product(*map(range, stride))
        }
        displacements = list(product(range(-reach, reach + 1), repeat=dims))
        costs = []
        for displacement in displacements:
            starts = [divmod(reach + by, step) for by, step in zip(displacement, stride, strict=True)]
            window = (slice(start, start + length) for (start, _), length in zip(starts, target.shape[1:], strict=True))
            there = lattices[tuple(first for _, first in starts)][(slice(None), *window)]
            costs.append((there - target).square_().sum(0) * weight[0])
        cost = _smooth(_smooth(torch.stack(costs)))
        tried = cost.new_tensor(displacements)
        field = cost.new_zeros(dims, *cost.shape[1:])
        # Place by place, so that the costs of one lie side by side.
        cost = cost.flatten(1).T.contiguous()
        for stiffness in STIFFNESS:
            # |d - s|^2 without |s|^2, which is the same for all d.
            far = tried.square().sum(1) - 2 * field.flatten(1).T @ tried.T
            best = torch.add(cost, far, alpha=stiffness).argmin(1)
            field = _smooth(tried[best].T.reshape(field.shape))
        return _at_voxels(field, stride, shape)


class SearchInferer(Inferer):
    """Register a pair as another inferer does, and search on from there.

    Args:
        inferer: a joined pair and a network -> ``ddf``, ``similarity``, ``seconds`` and whatever else it finds.
        search: a joined pair and its DDF -> DDF and disagreement, as ``DisplacementSearch``.
        loss: the objective whose ``similarity`` the result is judged by.
    """

    def __init__(self, inferer: Inferer, search: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.inferer = inferer
        self.search = search
        self.loss = loss

    def __call__(
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        *args: Any,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Register a batch of pairs; arguments are those of the inferer.

        Returns:
            The inferer's outputs, with ``ddf`` and, of each pair, the last ``similarity`` and ``seconds`` after the
            search, and its ``disagreement`` ``(batch,)``, mm. ``losses`` and ``best_step`` are those of the steps
            before it. The inverse of a velocity field is left out: it would be that of another field.
        """

        def register(pair: torch.Tensor, label: torch.Tensor | None) -> dict[str, torch.Tensor]:
            found = self.inferer(pair, network, *args, labels=label, **kwargs)
            start = time.perf_counter()
            with torch.no_grad():
                ddf, disagreement = self.search(pair, found["ddf"])
                if ddf is not found["ddf"]:
                    similarity = self.loss(ddf, pair, label)["similarity"]
                    found |= {"ddf": ddf, "similarity": torch.stack([found["similarity"][0, 0], similarity])[None]}
            found |= {"seconds": found["seconds"] + (time.perf_counter() - start), "disagreement": disagreement}
            return {key: value for key, value in found.items() if key != "inverse_ddf"}

        return one_by_one(register, inputs, labels)


def self_similarities(image: torch.Tensor) -> torch.Tensor:
    """How alike the neighbours of each voxel are: MIND with its self-similarity context (Heinrich et al. 2013).

    For each two neighbours of a voxel that are no opposites, ``exp(-D / V)``, where ``D`` is the mean square difference
    of the patches of 3 voxels around them, less the smallest of the voxel's, and ``V`` the mean of these. An image of
    other brightness or contrast has the same, unless it is constant but for rounding (``CONSTANT``).

    Args:
        image: ``(batch, 1, *shape)``.

    Returns:
        ``(batch, 12, *shape)``, 4 channels for a slice; in [0, 1].
    """
    dims, shape = image.ndim - 2, image.shape[2:]
    padded = F.pad(image, [1] * 2 * dims, mode="replicate")
    neighbours = [(axis, padded.narrow(2 + axis, 1 + side, shape[axis])) for axis in range(dims) for side in (-1, 1)]
    inner = [
        part[(..., *(slice(None) if other == axis else slice(1, -1) for other in range(dims)))]
        for axis, part in neighbours
    ]
    pairs = [two for two in combinations(range(2 * dims), 2) if neighbours[two[0]][0] != neighbours[two[1]][0]]
    squares = torch.cat([(inner[first] - inner[second]).square() for first, second in pairs], 1)
    patches = averages(F.pad(squares, [1] * 2 * dims, mode="replicate"), 3, 1)
    patches = patches - patches.amin(1, keepdim=True)
    mean = patches.mean(1, keepdim=True)
    typical = mean.flatten(1).mean(1).reshape(-1, *[1] * (dims + 1))
    least = (1e-3 * typical).clamp_min(CONSTANT**2)
    return torch.exp(-patches / mean.minimum(1e3 * typical).maximum(least))


def _smooth(fields: torch.Tensor) -> torch.Tensor:
    """Means over the neighbours of every voxel that lie in the image, ``(channels, *shape)``."""
    dims = fields.ndim - 1
    if min(fields.shape[1:]) < 3:  # where torch refuses a window of 3, even with what is added at the ends
        both = torch.cat([fields, torch.ones_like(fields[:1])])
        sums = averages(F.pad(both, [1] * 2 * dims)[None], 3, 1)[0]
        return sums[:-1] / sums[-1:]
    return averages(fields[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def _at_voxels(field: torch.Tensor, stride: list[int], shape: Sequence[int]) -> torch.Tensor:
    """A field of every second voxel at all voxels, ``(dims, *shape)``.

    Place ``j`` is the middle of the ``stride`` voxels from ``stride * j``. Beyond the outermost places, of which the
    last leaves out a voxel of an axis of odd length, the field is constant.
    """
    scale = list(map(float, stride))
    fine = F.interpolate(field[None], scale_factor=scale, mode=LINEAR[len(shape)])
    left = [[0, length - reached] for length, reached in zip(shape, fine.shape[2:], strict=True)]
    return F.pad(fine, sum(reversed(left), []), mode="replicate")[0]
