"""Which channels of the labels of a pair are scored, and how."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any


def scored_channels(
    data: Mapping[Hashable, Any], count: int, structures: Sequence[int] | None, landmarks: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """Channels that are scored by overlap, and those scored by the distance of points.

    Between patients only the ``landmarks`` correspond; within one patient every channel does. A pair whose patients
    nobody knows is taken for one between patients.

    Args:
        data: a pair; its ``patient`` names the patients of its images, each once.
        count: channels that both labels have.
        structures: channels scored by overlap; None: all.
        landmarks: channels that correspond between patients; None: all.

    Returns:
        Structures, and landmarks; no structure is a landmark, nor is the first channel where all are structures.
    """
    overlapping = [k for k in range(count) if structures is None or k in structures]
    within = len(data.get("patient", ())) == 1
    if landmarks is None or within:
        bodies = [0] if structures is None else structures
        return overlapping, [k for k in range(count) if k not in bodies]
    return overlapping, [k for k in range(count) if k in landmarks]
