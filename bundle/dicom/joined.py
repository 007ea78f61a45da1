"""Join stacks that are parts of one volume although a UID or a word in their headers separates them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from bundle.dicom.frames import Frame
from bundle.dicom.volume_grid import has_geometry, misplaced, sorted_along_normal
from bundle.dicom.volumes import in_order, parted

FEWEST = 3
"""Fewest slices whose even distances show that they are one volume; two are always even."""


def joined(found: Sequence[list[Frame]]) -> list[list[Frame]]:
    """Join the stacks that are separated only by errors of headers.

    Within one series, these are slices with several FrameOfReferenceUIDs, and slices of the volume that are called
    localizers. Across series, they are slices with a SeriesInstanceUID or a StudyInstanceUID of their own but the same
    number, description and kind. Together they are a volume if they lie in even steps, one slice at each place.

    Args:
        found: result of :func:`bundle.dicom.volumes.stacks`.
    """
    return in_order(_join(_join(found, _of_one_series), _of_one_name))


def _of_one_series(stack: Sequence[Frame]) -> Hashable:
    first = stack[0]
    return first.text("SeriesInstanceUID"), first.shape, first.text("SamplesPerPixel")


def _of_one_name(stack: Sequence[Frame]) -> Hashable:
    first = stack[0]
    names = tuple(first.text(keyword) for keyword in ("Modality", "SeriesNumber", "SeriesDescription"))
    return *names, first.shape, first.text("SamplesPerPixel"), first.localizer


def _join(found: Sequence[list[Frame]], alike: Callable[[Sequence[Frame]], Hashable]) -> list[list[Frame]]:
    pools: dict[Hashable, list[list[Frame]]] = defaultdict(list)
    for stack in found:
        if stack[0].count == 1 and has_geometry(stack):
            pools[alike(stack)].append(stack)
    left = list(found)
    for pool in pools.values():
        if len(pool) > 1:
            for volume in parted([frame for stack in pool for frame in stack]):
                members = {id(frame) for frame in volume}
                parts = [stack for stack in pool if members.issuperset(map(id, stack))]
                if len(parts) > 1 and sum(map(len, parts)) == len(volume) and _is_one(parts, volume):
                    left = [stack for stack in left if not any(stack is part for part in parts)] + [volume]
    return left


def _is_one(parts: Sequence[Sequence[Frame]], volume: Sequence[Frame]) -> bool:
    """Whether parts are one volume: each is a single slice, or their numbers continue from one to the next."""
    numbers = [frame.text("InstanceNumber") for frame in volume]
    told = len(set(numbers)) == len(numbers) or all(len(part) == 1 for part in parts)
    return told and len(volume) >= FEWEST and not misplaced(sorted_along_normal(volume))
