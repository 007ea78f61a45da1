"""What a user should know about a stack of slices that can be registered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bundle.dicom.frames import COMMON_UIDS, Frame
from bundle.dicom.headers import RESCALE, TABLE
from bundle.dicom.pixels import GREY
from bundle.dicom.volumes import has_geometry

OTHER_DISTANCE = 0.1
"""Fraction of the slice distance by which the header's value may be wrong."""
ASKEW = 1e-3
"""Deviation beyond which ITK does not accept two directions."""


def notes_of(stack: Sequence[Frame], alone: bool) -> tuple[str, ...]:
    """What the header of a stack makes doubtful, one line each.

    Args:
        stack: sorted slices without a fault.
        alone: whether these are all slices of their series.
    """
    always = (_uids, _localizers, _scaling, _partly_scaled, _tables, _stored)
    found = [note for notes in always for note in notes(stack)]
    if has_geometry(stack):
        found += [*_directions(stack), *_in_volume(stack)]
    if len(stack) > 1:
        found += _distance(stack)
    if alone and len(stack) > 1 and stack[0].count == 1:
        found += _ends(stack)
    return tuple(found)


def _uids(stack: Sequence[Frame]) -> Iterator[str]:
    for keyword in COMMON_UIDS:
        count = len({frame.text(keyword) for frame in stack})
        if count > 1:
            yield (
                f"its {len(stack)} slices have {count} different {keyword}s, expected one; they are read as one volume "
                "since nothing else tells them apart"
            )


def _localizers(stack: Sequence[Frame]) -> Iterator[str]:
    count = sum(frame.localizer for frame in stack)
    if 0 < count < len(stack):
        yield f"{count} of its {len(stack)} slices are called localizers, and lie where slices of the volume do"


def _scaling(stack: Sequence[Frame]) -> Iterator[str]:
    bad = [frame.badly_scaled for frame in stack if frame.badly_scaled]
    if bad:
        taken = 0 if "Intercept" in bad[0] else 1
        yield f"{bad[0]} in {len(bad)} of {len(stack)} slices, taken as {taken} as ITK does; look at the values"


def _partly_scaled(stack: Sequence[Frame]) -> Iterator[str]:
    """Report slices of a scaled volume that say nothing of their scale: a program may have applied and removed it."""
    given = sum(any(frame.text(keyword) for keyword in RESCALE) for frame in stack)
    if 0 < given < len(stack) and any(frame.rescale != (1, 0) for frame in stack):
        yield (
            f"{given} of {len(stack)} slices have a slope or an intercept ({', '.join(RESCALE)}), which is applied to "
            "these alone; look at the values"
        )


def _tables(stack: Sequence[Frame]) -> Iterator[str]:
    """Report a table of values in place of slope and intercept, which GDCM and most tools ignore."""
    count = sum(bool(frame.values.get(TABLE)) for frame in stack)
    if count:
        yield (
            f"{count} of {len(stack)} slices have a {TABLE}, a table of values; as in ITK, it is not "
            "applied, and the stored numbers are taken"
        )


def _stored(stack: Sequence[Frame]) -> Iterator[str]:
    """Compare what slices say about their numbers: ITK inverts MONOCHROME1 and takes the lowest bits."""
    inverted = sum(frame.text("PhotometricInterpretation") == GREY[0] for frame in stack)
    if 0 < inverted < len(stack):
        yield f"{inverted} of {len(stack)} slices are {GREY[0]}, which are inverted as in ITK; look at the values"
    for frame in stack:
        bits, high = frame.whole_number("BitsStored"), frame.whole_number("HighBit")
        if bits and high is not None and high != bits - 1:
            yield (
                f"its HighBit is {high} and its BitsStored {bits}; as in ITK, the lowest {bits} bits are taken; look "
                "at the values"
            )
            return


def _directions(stack: Sequence[Frame]) -> Iterator[str]:
    askew = max(frame.askew for frame in stack)
    if askew > ASKEW:
        used = "the nearest directions are used" if max(len(stack), stack[0].count) > 1 else "it lies where ITK puts it"
        yield (
            f"the directions of its ImageOrientationPatient are {askew:.1g} off length 1 and right angles, rounded?; "
            f"{used}, other tools may use none"
        )


def _in_volume(stack: Sequence[Frame]) -> Iterator[str]:
    if stack[0].in_volume:
        yield (
            "it lies in the coordinates of its transducer (ImagePositionVolume), not of a patient; look whether it is "
            "turned as the other image; ITK takes its voxels for 1 mm"
        )


def _distance(stack: Sequence[Frame]) -> Iterator[str]:
    """Compare SpacingBetweenSlices, which is not used: if it is less than the positions say, slices may be missing."""
    said = stack[0].numbers("SpacingBetweenSlices", 1)
    first, last = (np.array(frame.position) for frame in (stack[0], stack[-1]))
    measured = float(np.linalg.norm(last - first)) / (len(stack) - 1)
    if said and said[0] and abs(abs(said[0]) - measured) > OTHER_DISTANCE * measured:
        yield (
            f"its slices are {measured:.4g} mm apart, and SpacingBetweenSlices says {abs(said[0]):.4g} mm; the "
            "positions are used, some slices may be missing"
        )


def _ends(stack: Sequence[Frame]) -> Iterator[str]:
    """What positions cannot show: whether the first or the last slice, or every second one, may be missing."""
    numbers = sorted({number for frame in stack if (number := frame.whole_number("InstanceNumber")) is not None})
    expected = stack[0].whole_number("ImagesInAcquisition") or 0
    volume = stack[0].whole_number("NumberOfSlices") or 0
    if expected > len(stack) and len({frame.text("AcquisitionNumber") for frame in stack}) == 1:
        yield f"{len(stack)} slices of the {expected} that its acquisition has; some may be missing at its ends"
    elif volume > len(stack):
        yield f"{len(stack)} slices of the {volume} of its volume by its header; some may be missing at its ends"
    elif len(numbers) == len(stack) and (numbers[0] > 1 or numbers[-1] - numbers[0] >= len(stack)):
        span = f"{numbers[0]} to {numbers[-1]}"
        yield f"{len(stack)} slices with instance numbers {span}; some may be missing at its ends"
