"""How well the maps of a pair agree after registration, and how certain they are: what is known without labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch

from bundle.data import SIDES, side_tensor
from bundle.geometry import sample, voxel_grid


def map_metrics(data: Mapping[Hashable, Any], ddf: torch.Tensor) -> dict[str, Any]:
    """Predicted overlap of the maps of a pair, and their certainty (``bundle.maps``).

    With the maps ``f_k`` of the fixed image and ``w_k`` of the moving one, warped::

        predicted_overlap = 2 sum_k(w_k f_k) / sum_k(w_k^2 + f_k^2)

    It is 1 for maps that agree. The sums run over the voxels of all maps, so each map counts by its size: the heat maps
    of landmarks, a tenth of an organ and not the same place in every patient, say less about the registration than the
    organ does.

    Args:
        data: a pair on the network's grid, with ``fixed_maps`` and ``moving_maps``, ``(maps, *shape)``, and their
            ``fixed_certainty`` and ``moving_certainty`` (``bundle.maps.certainty``).
        ddf: ``(3, *shape)``, voxels of that grid.

    Returns:
        ``predicted_overlap``, and ``certainty`` of each image; empty for a pair without maps.
    """
    if "fixed_maps" not in data:
        return {}
    fixed, moving = (side_tensor(data, side, "maps").cpu().float() for side in SIDES)
    warped = sample(moving, voxel_grid(fixed.shape[1:]) + ddf, padding_mode="border")
    return {
        "predicted_overlap": float(2 * (warped * fixed).sum() / (warped**2 + fixed**2).sum().clamp_min(1e-6)),
        "certainty": {side: float(data[f"{side}_certainty"]) for side in SIDES},
    }
