"""How much labels or maps of a pair overlap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import nn

from bundle.geometry import averages

SCALES = (1, 2, 4, 8)


class OverlapLoss(nn.Module):
    """``L = mean_s mean_k [1 - D(P_s a_k, P_s b_k)]``, ``D(a, b) = 2 sum(a b) / sum(a^2 + b^2)``.

    ``P_s`` averages over cubes of ``s`` voxels. The overlap at coarse scales pulls on structures that hardly meet, like
    the Gaussians of the multi-scale Dice of Hu et al. 2018 (Eq. 3), in a hundredth of the time. With squares in its
    denominator, ``D`` is 1 only where ``a = b``, even for soft maps; for binary labels it is their Dice.

    Args:
        scales: edges of the cubes, voxels.
    """

    def __init__(self, scales: Sequence[int] = SCALES) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.dice = DiceLoss(squared_pred=True, reduction="none")

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Scalar loss of labels or maps ``(batch, structures, *shape)`` in [0, 1].

        Args:
            warped: those of the moving image, warped.
            fixed: those of the fixed image, the same shape.
            present: ``(batch, structures)``, 1 for the structures that count; None counts all.
        """
        present = torch.ones_like(fixed.flatten(2)[..., 0]) if present is None else present
        loss = fixed.new_zeros(())
        for scale in self.scales:
            # A cube of one voxel is the map itself; pooling would copy it in a twentieth of the time of a step.
            dice = self.dice(*(maps if scale == 1 else averages(maps, scale) for maps in (warped, fixed))).flatten(1)
            loss = loss + mean_over(dice, present) / len(self.scales)
        return loss


class AnatomySimilarity(OverlapLoss):
    """How little the maps of a pair overlap: ``OverlapLoss`` of the warped maps of the moving image and the fixed ones.

    The maps are what a network that knows anatomy sees in each image (``bundle.maps``), so a new pair needs no label.
    The idea comes from image-and-spatial transformer networks (Lee et al. 2019) and DeepSim (Czolbe et al. 2021).
    """


def chosen_maps(maps: torch.Tensor, numbers: Sequence[int], key: str, otherwise: str) -> torch.Tensor:
    """Some maps of an image.

    Args:
        maps: all of them, ``(batch, maps, *shape)``.
        numbers: those that are wanted, counted from 0.
        key: the setting that names them, for the error.
        otherwise: what to do if there is no such map.

    Raises:
        ValueError: when the image has no such map.
    """
    if not set(numbers) <= set(range(maps.shape[1])):
        raise ValueError(f"{key} is {numbers} and the pair has {maps.shape[1]} maps, counted from 0; {otherwise}")
    return maps[:, numbers]


def mean_over(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean of the values whose structure is present; 0 if none is."""
    return (values * present).sum() / present.sum().clamp_min(1)
