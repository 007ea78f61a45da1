"""The registration objective (Baum et al. 2022, Eq. 1): similarity + weight * regularisation [+ weight * label]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.networks.blocks import Warp
from torch import nn
from torch.nn import functional as F

from bundle.data import split_pair
from bundle.registration.similarities import takes_mask

EPSILON = 1e-3
"""Keeps a distance of zero differentiable and an empty label from a division by zero (voxels)."""


class LabelLoss(nn.Module):
    """How far apart the labels of a pair are: overlap at several scales, and distance between centroids.

    ``L = mean_s [1 - Dice(P_s warped, P_s fixed)] + b mean_k |c(warped_k) - c(fixed_k)|``, where ``P_s`` averages over
    cubes of ``s`` voxels. The overlap at coarse scales pulls on labels that hardly meet, as the Gaussians of the
    multi-scale Dice of Hu et al. 2018 (Eq. 3) do, for a hundredth of their time; the distance, the TRE itself, reaches
    landmarks of a few voxels from anywhere. A structure missing in either label contributes nothing.

    Args:
        overlap_structures: channels compared by overlap; None compares all.
        scales: edges of the cubes, voxels.
        distance_weight: ``b``, per mm.
        pixdim: spacing of the grid, mm.
    """

    def __init__(
        self,
        overlap_structures: Sequence[int] | None = None,
        scales: Sequence[int] = (1, 2, 4, 8),
        distance_weight: float = 0.03,
        pixdim: float = 1.0,
    ) -> None:
        super().__init__()
        self.overlap_structures = overlap_structures
        self.scales = tuple(scales)
        self.distance_weight = distance_weight
        self.pixdim = pixdim
        self.dice = DiceLoss(reduction="none")

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Scalar loss of two labels ``(batch, structures, *shape)`` in [0, 1].

        Raises:
            ValueError: when no structure is present in both labels.
        """
        axes = tuple(range(2, fixed.ndim))
        present = ((warped.detach().sum(axes) > 0) & (fixed.sum(axes) > 0)).float()
        if not present.any():
            raise ValueError("the label term found no structure that both labels of the pair contain")
        distance = self.pixdim * (soft_centroids(warped) - soft_centroids(fixed)).square().sum(-1).add(EPSILON).sqrt()
        loss = self.distance_weight * mean_over(distance, present)
        compared = slice(None) if self.overlap_structures is None else list(self.overlap_structures)
        pooling = F.avg_pool3d if fixed.ndim == 5 else F.avg_pool2d
        for scale in self.scales:
            dice = self.dice(pooling(warped[:, compared], scale), pooling(fixed[:, compared], scale)).flatten(1)
            loss = loss + mean_over(dice, present[:, compared]) / len(self.scales)
        return loss


def soft_centroids(label: torch.Tensor) -> torch.Tensor:
    """Centre of mass of every channel: ``(batch, channels, *shape)`` -> ``(batch, channels, dims)`` in voxels."""
    axes = range(2, label.ndim)
    profiles = [label.sum([other for other in axes if other != axis]) for axis in axes]
    positions = [torch.arange(label.shape[axis], device=label.device, dtype=label.dtype) for axis in axes]
    mass = label.sum(tuple(axes)).clamp_min(EPSILON)
    return torch.stack([profile @ place / mass for profile, place in zip(profiles, positions, strict=True)], dim=-1)


def mean_over(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean of the values whose structure is present; 0 without any."""
    return (values * present).sum() / present.sum().clamp_min(1)


class RegistrationLoss(nn.Module):
    """``L = similarity(moving o u, fixed) + a * regularisation(u) [+ b * label(moving_label o u, fixed_label)]``.

    Masks restrict the similarity to ``m = (moving_mask o u) * fixed_mask``, which has no gradient: the field gains
    nothing by moving the masks apart. The regularisation is of the whole field, so that it stays smooth outside.

    Args:
        similarity: loss of (warped, fixed) images ``(batch, 1, *shape)``, and of a mask ``m`` of that shape where the
            pairs have masks.
        regularisation: loss of a DDF ``(batch, dims, *shape)`` in voxels.
        regularisation_weight: ``a``; 10 in Baum et al. 2022, section 3.1.
        label: loss of (warped, fixed) labels ``(batch, structures, *shape)``; None leaves the term out.
        label_weight: ``b``.
    """

    def __init__(
        self,
        similarity: nn.Module,
        regularisation: nn.Module,
        regularisation_weight: float,
        label: nn.Module | None = None,
        label_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.regularisation = regularisation
        self.regularisation_weight = regularisation_weight
        self.label = label
        self.label_weight = label_weight
        self.warp = Warp()

    def forward(
        self, ddf: torch.Tensor, pair: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Evaluate the terms.

        Args:
            ddf: ``(batch, dims, *shape)``, voxels.
            pair: joined images ``(batch, 2, *shape)``, or ``(batch, 4, *shape)`` with the mask of each behind it.
            labels: joined labels ``(batch, 2 * structures, *shape)``; needed by the label term only.

        Returns:
            Scalars ``loss`` (the weighted sum), ``similarity``, ``regularisation`` and, when configured, ``label``.

        Raises:
            ValueError: when the label term is configured and ``labels`` is None; when the pair has masks which do not
                overlap, or which the similarity does not take.
        """
        moving, fixed = split_pair(pair)
        terms = {
            "similarity": self._similarity(self.warp(moving, ddf), fixed),
            "regularisation": self.regularisation(ddf),
        }
        loss = terms["similarity"] + self.regularisation_weight * terms["regularisation"]
        if self.label is not None:
            if labels is None:
                raise ValueError(
                    "the loss has a label term but the pair has no labels; "
                    "add fixed_label and moving_label to the data or remove the term"
                )
            moving_label, fixed_label = split_pair(labels)
            terms["label"] = self.label(self.warp(moving_label, ddf), fixed_label)
            loss = loss + self.label_weight * terms["label"]
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
        mask = (warped_mask[0] * fixed_mask[0]).detach()
        if not mask.flatten(1).any(1).all():
            raise ValueError(
                "the masks of the two images do not overlap; check fixed_mask, moving_mask and initial_alignment"
            )
        return self.similarity(warped_image, fixed_image, mask)
