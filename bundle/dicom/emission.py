"""Where the slices of a reconstructed emission tomography (SPECT) lie: one place and a distance for all frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

DETECTOR = "DetectorInformationSequence"
SLICES = "SliceVector"
PLACE = ("ImagePositionPatient", "ImageOrientationPatient")


def emission_slices(header: Dataset, count: int) -> list[dict[str, Any]]:
    """Position and orientation of every frame, by keyword, of a file with the NM Reconstruction module.

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
