"""How far the maps of a network are from their targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.metrics import CumulativeIterationMetric
from torch import nn
from torch.nn import functional as F

from bundle.geometry import voxel_grid


class MapLoss(nn.Module):
    """Dice and cross-entropy of the structures, cross-entropy of the heat maps of landmarks.

    ``L = mean_k [1 - Dice(p_k, t_k) + H(t_k, p_k)] + w mean_l H(t_l, p_l)`` with ``p = sigmoid(logits)`` and
    ``H(t, p) = -mean_x [t log p + (1 - t) log(1 - p)]``, over the structures ``k`` and the landmarks ``l`` that the
    label holds: a target with negative values is ignored. ``H`` is smallest where ``p = t``, for heat maps as well.

    Args:
        landmarks: channels that are heat maps.
        landmark_weight: ``w``; a heat map fills a hundredth of a volume, so its mean is small.
    """

    def __init__(self, landmarks: Sequence[int] = (), landmark_weight: float = 10.0) -> None:
        super().__init__()
        self.landmarks = list(landmarks)
        self.landmark_weight = landmark_weight
        self.dice = DiceLoss(sigmoid=True, reduction="none")

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of ``(batch, structures, *shape)``; 0 where nothing is known."""
        known = (target.flatten(2).amin(2) >= 0).float()
        target = target.clamp_min(0)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(2).mean(2)
        dice = self.dice(logits, target).flatten(1)
        points = torch.zeros_like(known)
        points[:, self.landmarks] = 1
        extended, points = known * (1 - points), known * points
        structures = ((dice + entropy) * extended).sum() / extended.sum().clamp_min(1)
        return structures + self.landmark_weight * (entropy * points).sum() / points.sum().clamp_min(1)


class LandmarkDistance(CumulativeIterationMetric):
    """Distance of the highest voxel of a heat map from that of its target, mm; NaN without a target.

    Args:
        landmarks: channels that are heat maps.
        pixdim: spacing of the isotropic grid, mm.
    """

    def __init__(self, landmarks: Sequence[int], pixdim: float) -> None:
        super().__init__()
        self.landmarks = list(landmarks)
        self.pixdim = pixdim

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: object) -> torch.Tensor:
        """``(batch, landmarks)`` of maps and targets ``(batch, structures, *shape)``."""
        assert y is not None  # the signature of the parent allows it
        places = voxel_grid(y.shape[2:], y.device).flatten(1)
        found, wanted = (places.T[maps[:, self.landmarks].flatten(2).argmax(2)] for maps in (y_pred, y))
        distance = self.pixdim * (found - wanted).norm(dim=-1)
        known = y[:, self.landmarks].flatten(2).amin(2) >= 0
        return distance.where(known, torch.full_like(distance, torch.nan))

    def aggregate(self) -> torch.Tensor:
        """Mean over all images and landmarks that are known, mm."""
        return self.get_buffer().nanmean()
