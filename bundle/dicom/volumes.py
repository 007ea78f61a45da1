"""From the mixed frames of a folder to stacks that may be volumes: one series, one plane, one slice per position."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bundle.dicom.frames import SPLIT_BY, Frame

PARALLEL = 1e-3
"""How much directions may differ in one stack (as a fraction of 1, 0.06 degrees), and spacings in mm."""
SAME_PLACE, SAME_PART = 1e-3, 1e-2
"""Distance within which two slices lie at one position: mm, or a fraction of a pixel if pixels are small."""


def stacks(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Separate frames by series, size and plane and, if several lie at one position, by what distinguishes them.

    Args:
        frames: frames of any files, in any order.

    Returns:
        Stacks in the order of their series' numbers. The frames of a multi-frame file stay together, since the file
        cannot be read in parts.
    """
    groups: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        file = str(frame.path) if frame.count > 1 else ""
        look = (frame.shape, frame.text("SamplesPerPixel"), frame.localizer, bool(frame.plane and frame.position))
        groups[(frame.text("SeriesInstanceUID"), frame.text("FrameOfReferenceUID"), file, *look)].append(frame)
    found = [stack for (_, _, file, *_), group in groups.items() for stack in ([group] if file else parted(group))]
    return in_order(found)


def in_order(found: Iterable[list[Frame]]) -> list[list[Frame]]:
    """Stacks in the order of their series' numbers."""
    return sorted(found, key=_order)


def parted(group: Sequence[Frame]) -> list[list[Frame]]:
    """Separate single-frame slices of one size by plane, then by what distinguishes those at one position."""
    return [part for plane in _planes(group) for part in _volumes(plane)]


def normal(plane: Sequence[float] | np.ndarray) -> np.ndarray:
    """Direction ``(3,)`` from slice to slice, LPS: the cross product of the directions of rows and columns."""
    return np.cross(plane[:3], plane[3:6])


def heights(stack: Sequence[Frame]) -> np.ndarray:
    """Position of every slice along the normal of the first one, mm."""
    return np.array([frame.position for frame in stack]) @ normal(stack[0].plane)


def sorted_along_normal(stack: Sequence[Frame]) -> list[Frame]:
    """Slices in the order of the volume's last axis; slices without a position by their numbers."""
    if not has_geometry(stack):
        return sorted(
            stack, key=lambda frame: (frame.whole_number("InstanceNumber") or 0, frame.index, frame.path.name)
        )
    return [stack[number] for number in np.argsort(heights(stack), kind="stable")]


def has_geometry(stack: Sequence[Frame]) -> bool:
    """Whether every slice has a position, an orientation and a spacing."""
    return all(frame.position and frame.plane for frame in stack)


def most_at_one_place(stack: Sequence[Frame]) -> int:
    """Largest number of slices at one position; 1 if there are no positions."""
    if not stack[0].position or not stack[0].plane:
        return 1
    near = min(SAME_PLACE, SAME_PART * min(stack[0].plane[6:]))
    return max(Counter(np.cumsum(np.diff(np.sort(heights(stack)), prepend=-np.inf) > near).tolist()).values())


def _planes(group: Sequence[Frame]) -> list[list[Frame]]:
    """Separate slices into parts of one orientation and spacing."""
    parts: list[list[Frame]] = []
    for frame in group:
        alike = (part for part in parts if np.allclose(part[0].plane, frame.plane, rtol=0, atol=PARALLEL))
        part = next(alike, None)
        if part is None:
            parts.append(part := [])
        part.append(frame)
    return parts


def _volumes(stack: list[Frame]) -> list[list[Frame]]:
    """Parts with one slice at every position, separated by the first attribute that can; the stack if none can.

    There are never more parts than slices at one position: an attribute that differs for every slice separates nothing.
    """
    most = most_at_one_place(stack)
    if most == 1:
        return [stack]
    for keyword in SPLIT_BY:
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in stack:
            parts[frame.text(keyword)].append(frame)
        if 1 < len(parts) <= most:
            return [volume for part in parts.values() for volume in _volumes(part)]
    return [stack]


def _order(stack: Sequence[Frame]) -> tuple[Any, ...]:
    first = stack[0]
    number, instances = first.whole_number("SeriesNumber"), [frame.whole_number("InstanceNumber") for frame in stack]
    known = [instance for instance in instances if instance is not None]
    told = min(known, default=0), first.whole_number("AcquisitionNumber") or 0
    return (number is None, number or 0, first.text("SeriesInstanceUID"), *told, str(first.path))
