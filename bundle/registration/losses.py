"""The registration objective (Baum et al. 2022, Eq. 1): similarity, regularisation and anatomy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from bundle.data import split_pair
from bundle.geometry import Warp
from bundle.registration.overlap import SCALES, OverlapLoss, chosen_maps, mean_over
from bundle.registration.similarities import takes_mask

EPSILON = 1e-3
"""Keeps a distance of zero differentiable, and avoids a division by zero for an empty label (voxels)."""


class LabelLoss(nn.Module):
    """How far apart a displacement leaves the labels of a pair: overlap at several scales, and distance of points.

    ``L = overlap + b mean_k pixdim |c_k + u(c_k) - m_k|``, where ``c_k`` and ``m_k`` are the centroids of structure
    ``k`` in the fixed and the moving label, and ``overlap`` is ``OverlapLoss`` of the warped and the fixed one. The
    distance is the TRE itself: it pulls on the point from any distance. Shrinking what surrounds the point does not
    lower it, while it does lower the distance between the centroids of the warped and the fixed label. A structure that
    is missing in either label contributes nothing.

    Args:
        overlap_structures: channels compared by overlap; None compares all.
        scales: edges of the cubes, voxels.
        distance_weight: ``b``, per mm.
        pixdim: spacing of the grid, mm.
    """

    def __init__(
        self,
        overlap_structures: Sequence[int] | None = None,
        scales: Sequence[int] = SCALES,
        distance_weight: float = 0.03,
        pixdim: float = 1.0,
    ) -> None:
        super().__init__()
        self.overlap_structures = overlap_structures
        self.overlap = OverlapLoss(scales)
        self.distance_weight = distance_weight
        self.pixdim = pixdim
        self.warp = Warp()

    def forward(self, ddf: torch.Tensor, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Scalar loss.

        Args:
            ddf: ``(batch, dims, *shape)``, voxels.
            moving: label ``(batch, structures, *shape)`` in [0, 1].
            fixed: the same shape.

        Raises:
            ValueError: when no structure is present in both labels.
        """
        axes = tuple(range(2, fixed.ndim))
        present = ((moving.sum(axes) > 0) & (fixed.sum(axes) > 0)).float()
        if not present.any():
            raise ValueError("the label term found no structure that both labels of the pair contain")
        points = soft_centroids(fixed)
        missed = points + at_points(ddf, points) - soft_centroids(moving)
        distance = self.pixdim * missed.square().sum(-1).add(EPSILON).sqrt()
        compared = slice(None) if self.overlap_structures is None else list(self.overlap_structures)
        overlap = self.overlap(self.warp(moving[:, compared], ddf), fixed[:, compared], present[:, compared])
        return overlap + self.distance_weight * mean_over(distance, present)


def at_points(ddf: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Displacement at points between voxels, ``u(p)`` by linear interpolation, constant beyond the border.

    Args:
        ddf: ``(batch, dims, *shape)``, voxels.
        points: ``(batch, points, dims)``, voxels.

    Returns:
        ``(batch, points, dims)``, voxels.
    """
    dims = ddf.shape[1]
    sizes = torch.tensor(ddf.shape[2:], dtype=points.dtype, device=points.device)
    # torch puts the last axis first, and its coordinates run from -1 to 1.
    places = (2 * points / (sizes - 1).clamp_min(1) - 1).flip(-1)
    places = places.reshape(*points.shape[:2], *[1] * (dims - 1), dims)
    found = F.grid_sample(ddf, places, padding_mode="border", align_corners=True)
    return found.flatten(2).transpose(1, 2)


def soft_centroids(label: torch.Tensor) -> torch.Tensor:
    """Centre of mass of every channel: ``(batch, channels, *shape)`` -> ``(batch, channels, dims)`` in voxels."""
    axes = range(2, label.ndim)
    profiles = [label.sum([other for other in axes if other != axis]) for axis in axes]
    positions = [torch.arange(label.shape[axis], device=label.device, dtype=label.dtype) for axis in axes]
    mass = label.sum(tuple(axes)).clamp_min(EPSILON)
    return torch.stack([profile @ place / mass for profile, place in zip(profiles, positions, strict=True)], dim=-1)


class RegistrationLoss(nn.Module):
    """``L = similarity + a * regularisation(u) [+ c * anatomy] [+ b * label]``.

    The similarity compares the images, ``S(moving o u, fixed)``, the anatomy term their maps in the same way, and the
    label term is ``label(u, moving_label, fixed_label)``.

    Masks restrict the similarity to ``m = (moving_mask o u) * fixed_mask``, which has no gradient: the field gains
    nothing by moving the masks apart. The regularisation covers the whole field, so that it stays smooth outside.

    Args:
        similarity: loss of (warped, fixed) images ``(batch, 1, *shape)``, and of a mask ``m`` of that shape if the
            pairs have masks.
        regularisation: loss of a DDF ``(batch, dims, *shape)`` in voxels.
        regularisation_weight: ``a``; 10 in Baum et al. 2022, section 3.1.
        label: loss of (ddf, moving label, fixed label); None leaves the term out.
        label_weight: ``b``.
        anatomy: loss of (warped, fixed) maps ``(batch, maps, *shape)``; None leaves the term out.
        anatomy_weight: ``c``.
        leading_maps: the maps whose overlap counts in ``L``, from 0; None for all.
    """

    def __init__(
        self,
        similarity: nn.Module,
        regularisation: nn.Module,
        regularisation_weight: float,
        label: nn.Module | None = None,
        label_weight: float = 1.0,
        anatomy: nn.Module | None = None,
        anatomy_weight: float = 1.0,
        leading_maps: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.regularisation = regularisation
        self.regularisation_weight = regularisation_weight
        self.label = label
        self.label_weight = label_weight
        self.anatomy = anatomy
        self.anatomy_weight = anatomy_weight
        if leading_maps is not None and not len(leading_maps):
            raise ValueError("leading_maps is []; expected maps, counted from 0, such as [0], or null for all")
        if leading_maps is not None and anatomy is None:
            raise ValueError(f"leading_maps is {list(leading_maps)} and there are no maps; give map_weights, or null")
        self.leading_maps = None if leading_maps is None else list(leading_maps)
        self.warp = Warp()

    def forward(
        self, ddf: torch.Tensor, pair: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Evaluate the terms.

        Args:
            ddf: ``(batch, dims, *shape)``, voxels.
            pair: joined pair (``bundle.data.pairs``), for each side its image [, mask [, maps]].
            labels: joined labels ``(batch, 2 * structures, *shape)``; only the label term needs them.

        Returns:
            Scalars ``loss`` (the weighted sum), ``similarity``, ``regularisation`` and, when configured, ``anatomy``
            and ``label``. If some maps lead, ``anatomy`` is still of all maps, and ``whole`` is the loss with all of
            them: what a result is judged by, without a gradient.

        Raises:
            ValueError: when a term is configured and the pair has no maps or ``labels`` is None; when the pair has
                masks, which the similarity does not take; when it lacks a map that leads.
        """
        moving, fixed = split_pair(pair)
        if self.anatomy is not None and fixed.shape[1] < 3:
            raise ValueError("the loss has an anatomy term but the pair has no maps; give map_weights, or no such term")
        warped = self.warp(moving, ddf)
        terms = {
            "similarity": self._similarity(warped[:, :2], fixed[:, :2]),
            "regularisation": self.regularisation(ddf),
        }
        loss = terms["similarity"] + self.regularisation_weight * terms["regularisation"]
        if self.anatomy is not None:
            maps = warped[:, 2:], fixed[:, 2:]
            if self.leading_maps is None:
                leading = terms["anatomy"] = self.anatomy(*maps)
            else:
                with torch.no_grad():
                    terms["anatomy"] = self.anatomy(*maps)
                terms["whole"] = loss.detach() + self.anatomy_weight * terms["anatomy"]
                otherwise = "give those of the organ, or null for all"
                leading = self.anatomy(
                    *(chosen_maps(side, self.leading_maps, "leading_maps", otherwise) for side in maps)
                )
            loss = loss + self.anatomy_weight * leading
        if self.label is not None:
            if labels is None:
                raise ValueError(
                    "the loss has a label term but the pair has no labels; "
                    "add fixed_label and moving_label to the data or remove the term"
                )
            moving_label, fixed_label = split_pair(labels)
            terms["label"] = self.label(ddf, moving_label, fixed_label)
            loss = loss + self.label_weight * terms["label"]
            if "whole" in terms:
                terms["whole"] = terms["whole"] + self.label_weight * terms["label"].detach()
        return {"loss": loss, **terms}

    def _similarity(self, warped: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Similarity of the two sides, each an image or an image and its mask."""
        (warped_image, *warped_mask), (fixed_image, *fixed_mask) = (side.split(1, dim=1) for side in (warped, fixed))
        if not fixed_mask:
            return self.similarity(warped_image, fixed_image)
        if not takes_mask(self.similarity):
            raise ValueError(
                f"the pair has masks, which {type(self.similarity).__name__} does not take; choose a similarity of "
                "bundle.registration (such as bundle.registration.MSELoss), give its forward a parameter mask, or "
                "leave the masks out"
            )
        # Whether any of it is left is not asked here, which would wait for the device at every step: if none is, the
        # loss is not finite.
        mask = (warped_mask[0] * fixed_mask[0]).detach()
        return self.similarity(warped_image, fixed_image, mask)
