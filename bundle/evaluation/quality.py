"""A plain verdict on a registered pair, and the quantities it needs beyond the metrics."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from bundle.data import is_picture
from bundle.evaluation.rules import score
from bundle.evaluation.verdict import Limits, check_limits, findings, judge
from bundle.geometry import apply_affine, at_faces, inside_grid, voxel_grid, without_alignment

LARGE_SHARE = 0.95
"""Share of the voxels at the faces that move by no more than the border displacement."""


def border_displacement(field: torch.Tensor) -> float:
    """Displacement that 95 % of the voxels at the faces of an image do not exceed.

    Args:
        field: ``(3, *shape)``; an axis of one voxel has no faces.

    Returns:
        A length in the unit of the field.
    """
    return float(np.quantile(at_faces(field.norm(dim=0)).numpy(), LARGE_SHARE))


def overlap_percent(
    displacement: torch.Tensor, fixed_affine: np.ndarray, moving_affine: np.ndarray, moving_shape: Sequence[int]
) -> float:
    """Share of the fixed voxels that come from inside the moving image, where ``A_moving^-1 (p + d(p))`` is in a voxel.

    Args:
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        moving_affine: ``(4, 4)`` voxel-to-world of the moving image.
        moving_shape: its spatial shape.

    Returns:
        0 to 100.
    """
    points = apply_affine(fixed_affine, voxel_grid(displacement.shape[1:])) + displacement
    inside = inside_grid(apply_affine(np.linalg.inv(moving_affine), points), moving_shape)
    return 100 * float(inside.double().mean())


def length_unit(image: Any) -> str:
    """Unit of an image's lengths: ``px`` for a picture, which has no spacing, else ``mm``."""
    return "px" if is_picture(image) else "mm"


class QualityVerdictd(Transform):
    """Adds the verdict on a registered pair to its ``metrics``, and the quantities it needs.

    ``largest_displacement_mm`` and ``border_displacement_mm`` describe the registration without the initial alignment
    (in pixels of the fixed image for pictures); ``overlap_percent`` is after registration. ``verdict`` is the result of
    ``judge``, with the ``score``.

    Args:
        limits: ``[check, failed]`` by rule (``RULES``); null switches a rule off.

    Raises:
        ValueError: for limits that belong to no rule, or are in the wrong order.
    """

    def __init__(self, limits: Limits) -> None:
        check_limits(limits)
        self.limits = limits

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Judge one pair after ``PairMetricsd``."""
        fixed, moving = data["native_fixed_image"], data["native_moving_image"]
        displacement, affine = data["displacement"].as_tensor(), np.asarray(fixed.affine)
        field = without_alignment(displacement, affine, np.asarray(data["initial_alignment"]))
        metrics = data["metrics"] | {
            "largest_displacement_mm": float(field.norm(dim=0).max()),
            "border_displacement_mm": border_displacement(field),
            "overlap_percent": overlap_percent(displacement, affine, np.asarray(moving.affine), moving.shape[1:]),
        }
        verdict = judge(findings(metrics, self.limits, length_unit(fixed))) | {"score": score(metrics)}
        return {**data, "metrics": metrics | {"verdict": verdict}}
