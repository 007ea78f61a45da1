"""Whether slices lie in even steps: parts that do so together are joined, parallel stacks that do not are separated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.dicom.frames import SPLIT_BY, Frame
from bundle.dicom.volumes import (
    PARALLEL,
    has_geometry,
    heights,
    in_order,
    most_at_one_place,
    normal,
    parted,
    sorted_along_normal,
)

FEWEST = 3
"""Fewest slices whose even distances show that they are one volume; two are always even."""
SHEAR_DEGREES, SHEAR_PIXELS = 0.1, 0.1
"""A stack is sheared if it leans by more than both; less comes from rounded numbers in a header."""
UNEVEN = 0.1
"""Fraction of the slice distance by which a slice may be off its place."""
GAP = 1.5
"""Distance of slices, in those of most, from which on there is a gap between them."""
MULTIPLE = 0.02
"""Fraction of the slice distance by which a gap of missing slices may differ from a multiple of it."""
CONVERT = "convert it to single frames"
KEEP_APART = "keep each stack in a folder of its own"


def joined(found: Sequence[list[Frame]]) -> list[list[Frame]]:
    """Join the stacks that are separated only by errors of headers.

    Within one series, these are slices with several FrameOfReferenceUIDs, and slices of the volume that are called
    localizers. Across series, they are slices with a SeriesInstanceUID or a StudyInstanceUID of their own but the same
    number, description and kind. Together they are a volume if they lie in even steps, one slice at each place.

    Args:
        found: result of :func:`bundle.dicom.volumes.stacks`.
    """
    return in_order(_join(_join(found, _of_one_series), _of_one_name))


def separated(found: Sequence[list[Frame]]) -> list[list[Frame]]:
    """Separate parallel stacks: slabs with a gap, overlapping slabs, blocks beside each other.

    Every part has even steps, and all slices together none, nor would missing slices explain it. A multi-frame file
    cannot be read in parts and stays whole.

    Args:
        found: result of :func:`joined`.
    """
    return [part for stack in found for part in _parallel_stacks(stack)]


def _parallel_stacks(stack: list[Frame]) -> list[list[Frame]]:
    if stack[0].count > 1 or len(stack) < 2 * FEWEST or not has_geometry(stack):
        return [stack]
    frames = sorted_along_normal(stack)
    if len({frame.position for frame in frames}) < len(frames) or not misplaced(frames):
        return [stack]
    gaps = _gaps(frames)
    if not _side_by_side(frames) and gaps.missing and (_numbers_skip(frames, gaps) or min(gaps.sizes) > 1):
        return [stack]
    for parts in _partitions(frames):
        if min(map(len, parts)) >= FEWEST and not any(misplaced(sorted_along_normal(part)) for part in parts):
            return parts
    return [stack]


def _partitions(frames: Sequence[Frame]) -> Iterator[list[list[Frame]]]:
    """Ways to part slices in order: by what their headers say, by runs of their numbers, by gaps between them."""
    for keyword in SPLIT_BY:
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[frame.text(keyword)].append(frame)
        if len(parts) > 1:
            yield list(parts.values())
    yield _runs(sorted(frames, key=lambda frame: frame.whole_number("InstanceNumber") or 0))
    yield _runs(frames)


def _runs(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Slices in a given order, parted where the step to the next is not the usual one."""
    steps = np.diff([frame.position for frame in frames], axis=0)
    usual = np.median(steps, axis=0)
    off = np.linalg.norm(steps - usual, axis=1) > UNEVEN * np.linalg.norm(usual)
    ends = [0, *(np.flatnonzero(off) + 1).tolist(), len(frames)]
    return [list(frames[first:end]) for first, end in zip(ends, ends[1:], strict=False)]


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


def misplaced(stack: Sequence[Frame]) -> str:
    """What keeps sorted slices from lying in even steps of one plane; empty if they do."""
    return _several_planes(stack) or _side_by_side(stack) or _same_place(stack) or _sheared(stack) or _uneven(stack)


def _several_planes(stack: Sequence[Frame]) -> str:
    """Report several planes among the frames of one file, which cannot be separated."""
    other = sum(not np.allclose(frame.plane, stack[0].plane, rtol=0, atol=PARALLEL) for frame in stack)
    return (
        f"{other} of the {len(stack)} frames of its file have another orientation or spacing; {CONVERT}"
        if other
        else ""
    )


def _side_by_side(stack: Sequence[Frame]) -> str:
    """Report slices more than a pixel beside the line from the first to the last: they are parts of several stacks."""
    places = np.array([frame.position for frame in stack]) - stack[0].position
    way = places[-1]
    apart = np.linalg.norm(places - np.outer(places @ way, way) / (float(way @ way) or 1.0), axis=1).max()
    if apart <= max(stack[0].plane[6:]):
        return ""
    todo = CONVERT if stack[0].count > 1 else KEEP_APART
    return f"its slices do not lie in one line, some are {apart:.3g} mm aside, as in several stacks; {todo}"


def _same_place(stack: Sequence[Frame]) -> str:
    most = most_at_one_place(stack)
    if most == 1:
        return ""
    todo = CONVERT if stack[0].count > 1 else "keep one slice at each in a folder of its own"
    return f"{most} of its {len(stack)} slices lie at one position (a time series, or copies of files?); {todo}"


def _sheared(stack: Sequence[Frame]) -> str:
    """Report the angle between the normal and the direction from the first slice to the last."""
    plane = np.array(stack[0].plane)
    way, across = np.array(stack[-1].position) - stack[0].position, normal(plane)
    along = float(way @ across)
    aside = float(np.linalg.norm(way - along * across))
    angle = float(np.rad2deg(np.arctan2(aside, along)))
    rounded = np.rad2deg(max(frame.rounding for frame in (stack[0], stack[-1])))
    if angle <= max(SHEAR_DEGREES, rounded) or aside <= SHEAR_PIXELS * plane[6:].min():
        return ""
    return (
        f"its slices are sheared by {angle:.1f} degrees (gantry tilt), each {aside / (len(stack) - 1):.2g} mm aside of "
        "the one before; resample it to a grid without tilt"
    )


def _uneven(stack: Sequence[Frame]) -> str:
    """Report slices off the even steps from the first to the last: missing ones, parallel stacks, other distances."""
    places = np.array([frame.position for frame in stack])
    even = np.linspace(places[0], places[-1], len(places))
    step = np.linalg.norm(places[-1] - places[0]) / (len(places) - 1)
    if np.linalg.norm(places - even, axis=1).max() <= UNEVEN * step:
        return ""
    gaps = _gaps(stack)
    count = f"{gaps.missing} {'slice is' if gaps.missing == 1 else 'slices are'} missing"
    if gaps.missing and _numbers_skip(stack, gaps):
        return f"{count}{', the first' if gaps.several else ''} between {_ends(stack, gaps)}; send the series again"
    if min(gaps.sizes) == 1 or not len(gaps.wide):
        low, high = gaps.distances.min(), gaps.distances.max()
        return f"the distances of its slices are {low:.3g} to {high:.3g} mm, expected even; resample it"
    where = f"{gaps.distances[gaps.wide[0]]:.4g} mm between {_ends(stack, gaps)}{', and more gaps' * gaps.several}"
    sizes = " to ".join(map(str, sorted({min(gaps.sizes), max(gaps.sizes)})))
    stacks = f"{len(gaps.sizes)} parallel stacks of {sizes} slices"
    what, again = (f"{count}, or it has {stacks}", "send it again, or ") if gaps.missing else (f"it has {stacks}", "")
    todo = CONVERT if stack[0].count > 1 else KEEP_APART
    return f"its slices are {gaps.usual:.4g} mm apart, but {where}: {what}; {again}{todo}"


@dataclass(frozen=True)
class _Gaps:
    """Distances of sorted slices in one line.

    Attributes:
        distances: from each slice to the next, mm.
        usual: distance of slices without a gap between them, mm.
        wide: number of the slice before each gap.
        missing: how many slices more would fill the gaps in even steps; 0 if no number does.
    """

    distances: np.ndarray
    usual: float
    wide: np.ndarray
    missing: int

    @property
    def several(self) -> bool:
        """Whether there are several gaps."""
        return len(self.wide) > 1

    @property
    def sizes(self) -> list[int]:
        """How many slices follow each other without a gap."""
        return np.diff([0, *(self.wide + 1), len(self.distances) + 1]).tolist()


def _gaps(stack: Sequence[Frame]) -> _Gaps:
    distances = np.linalg.norm(np.diff([frame.position for frame in stack], axis=0), axis=1)
    usual = float(distances[distances < GAP * distances.min()].mean())
    wide = distances > GAP * usual
    uneven = float(np.abs(distances[~wide] / usual - 1).max())
    steps = distances[wide] / usual
    off = np.abs(steps - np.rint(steps)).max(initial=0)
    multiples = uneven <= 2 * UNEVEN and off <= min(max(MULTIPLE, 2 * uneven), 2 * UNEVEN)
    return _Gaps(distances, usual, np.flatnonzero(wide), int((np.rint(steps) - 1).sum()) if multiples else 0)


def _numbers_skip(stack: Sequence[Frame], gaps: _Gaps) -> bool:
    """Whether instance numbers are lacking, as many as slices; without numbers, whether one slice fills each gap."""
    numbers = {number for frame in stack if (number := frame.whole_number("InstanceNumber")) is not None}
    if stack[0].count > 1 or not numbers:
        return stack[0].count == 1 and gaps.missing == len(gaps.wide)
    return max(numbers) - min(numbers) + 1 - len(numbers) >= gaps.missing


def _ends(stack: Sequence[Frame], gaps: _Gaps) -> str:
    """Slices before and after the first gap, by their numbers and places."""
    around = stack[gaps.wide[0] : gaps.wide[0] + 2]
    numbers = [frame.text("InstanceNumber") for frame in around]
    called = f"instance numbers {numbers[0]} and {numbers[1]}, " if all(numbers) and around[0].count == 1 else ""
    low, high = (float(height) for height in heights(stack)[gaps.wide[0] : gaps.wide[0] + 2])
    return f"{called}{low:.4g} and {high:.4g} mm along the normal"
