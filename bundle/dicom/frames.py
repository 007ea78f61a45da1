"""From headers of DICOM files to frames: what is known about every slice before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from bundle.dicom.files import is_dicom, is_named, open_dicom, start_of, why_not_read
from bundle.dicom.headers import DETECTOR, IN_VOLUME, OWN, PLACE, RESCALE, SHARED, SLICES, TABLE, frame_values, plain
from bundle.dicom.pixels import STORED, bytes_of, pixels_ahead
from bundle.system.contents import EMPTY

SPLIT_BY = (
    "StudyInstanceUID",
    "ImageType",
    "FrameType",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
)
"""Attributes that separate the volumes of one series if several slices lie at one position, the surest first."""
COMMON_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""UIDs that all slices of a volume share."""
IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
"""Attributes by which an object refers to an image."""
TAGS = (
    *SPLIT_BY,
    *COMMON_UIDS,
    *("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesNumber"),
    *("InstanceNumber", "ImagesInAcquisition", "NumberOfSlices"),
    *STORED,
    *(*PLACE, "PixelSpacing", "SpacingBetweenSlices", *RESCALE, TABLE),
    *("DimensionOrganizationType", "InConcatenationTotalNumber"),
    *(SHARED, OWN, DETECTOR, SLICES),
)
"""All attributes that are read from a header; none names the patient."""
NO_IMAGES = ("SEG", "RTDOSE")
"""Modalities whose pixels are not intensities."""
EXACT = 1e-6
"""How far directions may be from unit length and right angles if they were not rounded to a few digits."""
NO_IMAGE_CLASSES = ("Segmentation Storage", "Label Map Segmentation Storage", "RT Dose Storage")
DEFLATED = b"1.2.840.10008.1.2.1.99"


class Damaged(ValueError):
    """A file that should be DICOM cannot be read; the message says why, if that is known."""


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or a frame of a multi-frame file.

    Attributes:
        path: its file.
        index: its number in the file, from 0.
        count: frames of the file.
        syntax: transfer syntax, that is, how its pixels are compressed.
        times: how many times the file holds the pixels that its header declares; 0 if some are lacking.
        floats: whether they are floating-point numbers.
        values: attributes of the header by keyword, with those of its functional groups if the file has several frames.
    """

    path: Path
    index: int
    count: int
    syntax: str
    times: int
    floats: bool
    values: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        """An attribute as text; empty if it is missing."""
        value = self.values.get(keyword)
        letters = " ".join(("" if value is None else str(value)).split())
        return "".join(letter if letter.isprintable() else "?" for letter in letters)

    def whole_number(self, keyword: str) -> int | None:
        """An attribute that is a whole number, such as InstanceNumber; None if it is missing."""
        value = self.values.get(keyword)
        return int(value) if isinstance(value, int | float) else None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """An attribute with a given count of numbers; empty if it is missing."""
        found = self._numbers(keyword)
        return tuple(found.tolist()) if found.shape == (count,) and np.isfinite(found).all() else ()

    def _numbers(self, keyword: str) -> np.ndarray:
        value = self.values.get(keyword)
        try:
            return np.ravel(np.asarray([] if value is None or value == "" else value, dtype=float))
        except (ValueError, TypeError):
            return np.array([])

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows."""
        return int(self.values["Columns"]), int(self.values["Rows"])

    @cached_property
    def position(self) -> tuple[float, ...]:
        """Centre of the first pixel, mm, LPS; empty if it is missing."""
        return self.numbers("ImagePositionPatient", 3)

    @cached_property
    def plane(self) -> tuple[float, ...]:
        """Directions along a row and along a column (LPS), distances between rows and between columns (mm).

        Rounded directions are replaced by the nearest ones of length 1 at right angles, ``U V^T`` of ``U S V^T``.
        """
        orientation, spacing = self.numbers("ImageOrientationPatient", 6), self.numbers("PixelSpacing", 2)
        if not orientation or not spacing:
            return ()
        left, _, right = np.linalg.svd(np.reshape(orientation, (2, 3)), full_matrices=False)
        return (*(left @ right).ravel().tolist(), *spacing)

    @property
    def in_volume(self) -> bool:
        """Whether it lies in the coordinates of its volume, which are not those of a patient."""
        return bool(self.numbers(IN_VOLUME[0], 3))

    @property
    def askew(self) -> float:
        """How far the two directions of the header are from length 1 and right angles, as a fraction of 1."""
        directions = np.reshape(self.numbers("ImageOrientationPatient", 6) or np.eye(3)[:2].ravel(), (2, 3))
        return float(np.abs(directions @ directions.T - np.eye(2)).max())

    @property
    def rounding(self) -> float:
        """Angle by which rounding may have turned the plane, radians; 0 if its directions look exact."""
        if self.askew < EXACT:
            return 0.0
        numbers = np.array(self.numbers("ImageOrientationPatient", 6))
        digits = next((n for n in range(1, 7) if np.allclose(numbers, numbers.round(n), rtol=0, atol=1e-9)), 7)
        return 2 * 10.0**-digits

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept from stored numbers to values; as in ITK, a slope of 0 or an invalid one becomes 1."""
        slope, intercept = (self._first_number(keyword) for keyword in RESCALE)
        return slope or 1.0, intercept or 0.0

    @property
    def badly_scaled(self) -> str:
        """Which of slope and intercept has an impossible value, and the value; empty if neither has."""
        for keyword in RESCALE:
            value = self.values.get(keyword)
            number = self._first_number(keyword)
            if value not in (None, "") and (number is None or (number == 0 and keyword == "RescaleSlope")):
                return f"{keyword} {'0' if number == 0 else 'that is no number'}"
        return ""

    def _first_number(self, keyword: str) -> float | None:
        found = self._numbers(keyword)
        return float(found[0]) if found.size and isfinite(found[0]) else None

    @property
    def localizer(self) -> bool:
        """Whether the image was made to plan other images."""
        return any("LOCALIZER" in self.text(keyword).upper() for keyword in ("ImageType", "FrameType"))


def read_frames(path: Path) -> list[Frame]:
    """Frames of an image; empty for a file that is not DICOM or holds no image.

    Args:
        path: a file, with or without preamble and suffix; only its header is read.

    Raises:
        Damaged: for a file that should be DICOM and cannot be read.
    """
    start = start_of(path)
    reason = why_not_read(start)
    if reason:
        raise Damaged(reason)
    if not is_dicom(start) and not is_named(path):
        return []
    if not start:
        raise Damaged(EMPTY)
    if DEFLATED in start:  # the header itself is compressed, and may expand to a thousand times its length
        raise Damaged("compressed as a whole (deflated); decompress it")
    with open_dicom(path) as file:
        try:
            return list(_frames(path, file))
        except Damaged:
            raise
        except Exception as error:  # every reader reports a wrong header in its own way
            raise Damaged from error


def _frames(path: Path, file: IO[bytes]) -> Iterator[Frame]:
    header = dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    values = plain(header)
    pixels = pixels_ahead(file)
    if pixels is None:
        if not _holds_no_image(header, values):
            raise ValueError("an image without pixels")
        return
    if values.get("Modality") in NO_IMAGES or UID(str(values.get("SOPClassUID", ""))).name in NO_IMAGE_CLASSES:
        return
    absent = [keyword for keyword in ("Rows", "Columns", "BitsAllocated") if not values.get(keyword)]
    if absent:
        raise Damaged(f"its header has no {' and no '.join(absent)}; export it again")
    count = int(values.get("NumberOfFrames") or 1)
    syntax = str(header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    times = pixels.times(file, bytes_of(values), count, syntax)
    for index, own in enumerate(frame_values(header, count)):
        yield Frame(path, index, count, syntax, times, pixels.floats, {**values, **own})


def _holds_no_image(header: Dataset, values: Mapping[str, Any]) -> bool:
    """Whether a header without pixels belongs to a report or the like, rather than to a file that was cut short.

    The class of an object counts if something follows it: it is then complete.
    """
    meta = header.file_meta
    kind = meta.get("MediaStorageSOPClassUID") if "TransferSyntaxUID" in meta else None
    if not kind and any(keyword in values for keyword in ("Modality", *COMMON_UIDS)):
        kind = values.get("SOPClassUID")
    return bool(kind) and "Image Storage" not in UID(str(kind)).name
