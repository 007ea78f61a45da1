"""Which channels of the labels of a pair are scored, and how."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from bundle.data import by_name, corresponding, one_patient
from bundle.system import DataWarning

MOVING = (
    "native_moving_label",
    *(f"{name}_label{kind}" for name in ("aligned", "warped") for kind in ("", "_weights")),
)
"""Labels that come from the moving image."""


def in_fixed_numbers(data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Number the labels of the moving image like the fixed one's, for a pair whose structures correspond by name.

    Structures that the fixed label does not have are left out. Any other pair stays as it is.
    """
    output = dict(data)
    if not by_name(data) or "native_fixed_label" not in data:
        return output
    count = len(data["native_fixed_label"])
    for key in MOVING:
        if key in data:
            output[key] = _renumbered(data, data[key], count)
    return output


def _renumbered(data: Mapping[Hashable, Any], label: MetaTensor, count: int) -> MetaTensor:
    old = label.as_tensor()
    new = torch.zeros(count, *old.shape[1:], dtype=old.dtype)
    for _, fixed, moving in corresponding(data, []):
        if fixed is None or moving is None:
            continue
        if count == 1:
            new[old == moving] = fixed
        elif moving < len(old) and fixed < count:
            new[fixed] = old[moving]
    return MetaTensor(new, meta=label.meta)  # which holds the affine


def scored_channels(
    data: Mapping[Hashable, Any], count: int, structures: Sequence[int] | None, landmarks: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """Channels that are scored by overlap, and those scored by the distance of points.

    Between patients only the ``landmarks`` correspond, or, if structures have names, those that both labels name.
    Within one patient every channel corresponds. A pair of unknown patients counts as one between patients.

    Args:
        data: a pair; its ``patient`` names the patients of its images, each once.
        count: channels that both labels have.
        structures: channels scored by overlap; None: all.
        landmarks: channels that correspond between patients; None: all.

    Returns:
        Structures and landmarks. No structure is a landmark, nor is the first channel if all are structures.

    Warns:
        DataWarning: when the labels lack a channel that is asked for, of which nothing can be measured.
    """
    absent = sorted({k for k in (*(structures or ()), *(landmarks or ())) if not 0 <= k < count})
    if absent:
        warnings.warn(
            f"pair {data.get('pair_id')}: the labels have no channel {', '.join(map(str, absent))} (theirs are 0 to "
            f"{count - 1}), so nothing is measured there; structure_channels and landmark_channels say what to score",
            DataWarning,
            stacklevel=4,
        )
    shared = [fixed for _, fixed, _ in corresponding(data, range(count)) if fixed is not None and fixed < count]
    overlapping = [k for k in shared if structures is None or k in structures]
    bodies = [0] if structures is None else structures
    points = shared if landmarks is None or one_patient(data) else landmarks
    return overlapping, [k for k in shared if k in points and k not in bodies]
