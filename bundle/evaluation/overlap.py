"""How well the structures of two labels overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from bundle.data import structure_mask


def structure_channels(label: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """Binary channels of named structures: ``(len(values), *shape)`` from an integer map or from channels.

    Args:
        label: ``(1, *shape)`` integer map, or ``(channels, *shape)``.
        values: label values of a map, channel numbers (from 0) otherwise.
    """
    return torch.stack([structure_mask(label, value) for value in values]).float()


def missing_structures(fixed: torch.Tensor, moving: torch.Tensor, structures: Sequence[int]) -> dict[str, str]:
    """Structures that one of two labels lacks, which no registration brings to overlap.

    Args:
        fixed: label, an integer map ``(1, *shape)`` or channels ``(channels, *shape)``.
        moving: label of the same kind, on its own grid.
        structures: as ``values`` of ``structure_channels``.

    Returns:
        What is the matter with each.
    """
    if not structures:
        return {}
    there = (structure_channels(label, structures).flatten(1).any(1).tolist() for label in (fixed, moving))
    return {
        str(structure): f"is missing in the {'moving' if in_fixed else 'fixed'} label"
        for structure, in_fixed, in_moving in zip(structures, *there, strict=True)
        if in_fixed != in_moving
    }


def told(missing: Mapping[str, str], structures: Iterable[str]) -> str:
    """A sentence about missing structures, of all that are scored."""
    named = "; ".join(f"{name} {what}" for name, what in missing.items())
    if set(structures) <= missing.keys():
        todo = "give a structure one value, or channel, in both"
        return f"the labels share no structure, so no overlap is scored ({named}); {todo}"
    return f"structures that only one label has are not scored ({named})"


def hausdorff_95(label: torch.Tensor, target: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """95 % Hausdorff distance of every structure.

    ``HD95 = max(P95_a min_b |a - b|, P95_b min_a |a - b|)`` over the surface voxels ``a`` and ``b`` of the two labels.
    The surface of a structure in a slice is its outline.

    Args:
        label: ``(structures, *shape)``, binary.
        target: the same shape, binary.
        spacing: distance between voxels along each axis, mm.

    Returns:
        ``(structures,)`` in mm; NaN if a structure is missing in either label.
    """
    # MONAI warns about empty masks and makes their distance NaN or infinite, so it does not get any.
    present = label.flatten(1).any(1) & target.flatten(1).any(1)
    distances = torch.full((len(label),), torch.nan)
    # In a volume of one slice every voxel would be on the surface.
    axes = [axis for axis, length in enumerate(label.shape[1:]) if length > 1]
    shape = [label.shape[1 + axis] for axis in axes]
    structures = [channels[present].reshape(1, -1, *shape) for channels in (label, target)]
    distances[present] = compute_hausdorff_distance(
        *structures, include_background=True, percentile=95, spacing=[spacing[axis] for axis in axes]
    )[0]
    return distances


def overlap_metrics(
    fixed: torch.Tensor, moved: Mapping[str, torch.Tensor], structures: Sequence[int], spacing: Sequence[float]
) -> dict[str, dict[str, dict[str, float]]]:
    """DSC and 95 % Hausdorff distance of every structure.

    Args:
        fixed: label, an integer map ``(1, *shape)`` or channels ``(channels, *shape)``.
        moved: the moving label on its grid, ``before`` and ``after`` registration.
        structures: as ``values`` of ``structure_channels``.
        spacing: distance between voxels along each axis, mm.

    Returns:
        ``dsc`` and ``hd95_mm``: structure -> ``before`` and ``after``.
    """
    found: dict[str, dict[str, dict[str, float]]] = {
        key: {str(k): {} for k in structures} for key in ("dsc", "hd95_mm")
    }
    if not structures:
        return found
    target = structure_channels(fixed, structures)
    for when, label in moved.items():
        channels = structure_channels(label, structures)
        scores = {
            "dsc": compute_dice(channels[None], target[None])[0],
            "hd95_mm": hausdorff_95(channels, target, spacing),
        }
        for key, values in scores.items():
            for structure, value in zip(structures, values.tolist(), strict=True):
                found[key][str(structure)][when] = value
    return found
