"""What a header says of each frame: its attributes, its functional groups, and where it lies if that is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from bundle.dicom.pixels import PALETTE

RESCALE, TABLE = ("RescaleSlope", "RescaleIntercept"), "ModalityLUTSequence"
SHARED, OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
DETECTOR, SLICES = "DetectorInformationSequence", "SliceVector"
PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
IN_VOLUME = ("ImagePositionVolume", "ImageOrientationVolume")
"""The same in the coordinates of a volume of ultrasound, which are those of its transducer."""


def plain(header: Dataset) -> dict[str, Any]:
    """Attributes of a header that are not sequences, by keyword, except invalid values.

    An invalid slope or intercept becomes NaN, a table or a palette its length: it matters that they are there.
    """
    values = {}
    for tag in header.keys():  # noqa: SIM118 - a dataset itself goes over its values
        try:
            element = header[tag]
            if element.VR != "SQ":
                values[element.keyword] = len(element.value) if element.keyword in PALETTE[1::2] else element.value
            elif element.keyword == TABLE:
                values[TABLE] = len(element.value)
        except (ValueError, TypeError, OverflowError, NotImplementedError):
            if keyword_for_tag(tag) in RESCALE:
                values[keyword_for_tag(tag)] = float("nan")
    return values


def frame_values(header: Dataset, count: int) -> list[dict[str, Any]]:
    """What a header says of its frames beside the attributes of the whole file.

    Args:
        header: of a file.
        count: number of its frames.

    Returns:
        Attributes of each frame by keyword; a single item if nothing tells the frames apart.

    Raises:
        ValueError: when there are functional groups for another number of frames.
    """
    shared, own = _grouped(header.get(SHARED) or ()), header.get(OWN) or ()
    if own and len(own) != count:
        raise ValueError("as many functional groups as frames expected")
    return [_placed({**shared, **_grouped([item])}) for item in own] or _emission_slices(header, count) or [shared]


def _grouped(items: Iterable[Dataset]) -> dict[str, Any]:
    """Attributes in the functional groups of a frame, or of all frames.

    A private one is none: that of Philips (2005,140F) repeats places and scales in forms of its own.
    """
    elements = (element for item in items for element in item if element.VR == "SQ" and not element.tag.is_private)
    groups = (element.value[0] for element in elements if element.value)
    return {keyword: value for group in groups for keyword, value in plain(group).items()}


def _placed(values: dict[str, Any]) -> dict[str, Any]:
    """A frame with its place in the patient or, if it has none, in its volume (Enhanced US Volume, PS3.3 A.59).

    The coordinates of its volume are kept only where they are those that count.
    """
    if any(values.get(keyword) for keyword in PLACE) or not all(values.get(keyword) for keyword in IN_VOLUME):
        return {keyword: value for keyword, value in values.items() if keyword not in IN_VOLUME}
    return values | {place: values[keyword] for place, keyword in zip(PLACE, IN_VOLUME, strict=True)}


def _emission_slices(header: Dataset, count: int) -> list[dict[str, Any]]:
    """Position and orientation of every slice of a reconstructed emission tomography (SPECT).

    Slice ``k`` lies at ``S + k d n`` (DICOM PS3.3, C.8.4.15), with ``S`` the position of the first, ``n`` the normal of
    its rows and columns and ``d`` SpacingBetweenSlices, which is negative where slices follow each other against ``n``.

    Args:
        header: of a file of several frames.
        count: number of frames.

    Returns:
        Attributes of each frame; empty for other files, and for those that lack any of these numbers.
    """
    kind = [*(header.get("ImageType") or ()), "", "", ""][2]
    detectors = header.get(DETECTOR) or ()
    if not str(kind).startswith("RECON") or not detectors:
        return []
    numbers = np.atleast_1d(header.get(SLICES) or np.arange(1, count + 1))
    try:
        place, directions = (np.array(detectors[0][keyword].value, dtype=float) for keyword in PLACE)
        step = float(header["SpacingBetweenSlices"].value) * np.cross(directions[:3], directions[3:])
        positions = [(place + (number - 1) * step).tolist() for number in numbers]
    except (KeyError, TypeError, ValueError):
        return []
    frames = [dict(zip(PLACE, (position, directions.tolist()), strict=True)) for position in positions]
    return frames if len(frames) == count else []
