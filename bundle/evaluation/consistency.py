"""Measures of a registration by itself: its swapped pair, and its image on itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bundle.geometry import compose, lift_ddf


def consistency_metrics(pred: Mapping[str, Any], affine: np.ndarray) -> dict[str, Any]:
    """What the registrations of ``bundle.registration.ConsistencyInferer`` say; lengths in mm on the network's grid.

    Args:
        pred: outputs of the inferer for a pair: ``ddf``, and ``swapped_ddf`` or ``self_ddf`` where asked for.
        affine: ``(4, 4)`` voxel-to-world of the network's grid.

    Returns:
        ``inverse_consistency_mm``: ``mean_p |T_ba(T_ab(p)) - p|`` over all voxels, 0 of fields that undo each other
        and of none (Christensen and Johnson 2001). ``self_displacement_mm``: ``mean`` and ``max`` of ``|T_aa(p) - p|``.
    """
    found: dict[str, Any] = {}
    if "swapped_ddf" in pred:
        there, back = (torch.as_tensor(pred[key]).cpu()[None] for key in ("ddf", "swapped_ddf"))
        found["inverse_consistency_mm"] = float(lengths(compose(there, back)[0], affine).mean())
    if "self_ddf" in pred:
        moved = lengths(torch.as_tensor(pred["self_ddf"]).cpu(), affine)
        found["self_displacement_mm"] = {"mean": float(moved.mean()), "max": float(moved.max())}
    return found


def lengths(ddf: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Length of every vector of a DDF, ``|A u|`` with ``A`` the linear part of its grid's affine.

    Args:
        ddf: ``(2, X, Y)`` or ``(3, X, Y, Z)``, voxels.
        affine: ``(4, 4)`` voxel-to-world.

    Returns:
        ``(X, Y, Z)``, mm.
    """
    field = lift_ddf(ddf)
    return torch.tensordot(torch.as_tensor(affine[:3, :3]).to(field), field, dims=1).norm(dim=0)
