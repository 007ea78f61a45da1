"""Headers of DICOM files -> frames: what is known of every slice before a pixel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

SPLIT_BY = (
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
"""What tells the volumes of one series apart where several slices lie at one position, the surest first."""
TAGS = (
    *SPLIT_BY,
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SeriesDescription", "SeriesNumber", "InstanceNumber", "ImagesInAcquisition"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""All that is read of a header; nothing of it names the patient."""
NO_IMAGES = ("SEG", "RTDOSE")
"""Modalities whose pixels are no intensities."""
PREAMBLE = 132
PIXEL_DATA, FLOAT_PIXEL_DATA = b"\xe0\x7f\x10\x00", (b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00")
ITEM, DELIMITER, UNDEFINED = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", 0xFFFFFFFF
DEFLATED = b"1.2.840.10008.1.2.1.99"


class Damaged(ValueError):
    """A file that should be DICOM and cannot be read."""


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or a frame of a multi-frame file.

    Attributes:
        path: its file.
        index: its number in the file, from 0.
        count: frames of the file.
        syntax: transfer syntax: how its pixels are compressed.
        whole: whether the file holds all the pixels that it should.
        floats: whether they are floating-point numbers.
        values: attributes of the header by keyword; those of its functional groups where the file has several frames.
    """

    path: Path
    index: int
    count: int
    syntax: str
    whole: bool
    floats: bool
    values: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        """An attribute as text, empty without one."""
        value = self.values.get(keyword)
        letters = " ".join(("" if value is None else str(value)).split())
        return "".join(letter if letter.isprintable() else "?" for letter in letters)

    def whole_number(self, keyword: str) -> int | None:
        """An attribute that counts, such as InstanceNumber; None without one."""
        value = self.values.get(keyword)
        return int(value) if isinstance(value, int | float) else None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """An attribute of so many numbers; empty without them."""
        value = self.values.get(keyword)
        found = np.atleast_1d(np.asarray(value if value not in (None, "") else [], dtype=float))
        return tuple(found.tolist()) if found.shape == (count,) and np.isfinite(found).all() else ()

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows."""
        return int(self.values["Columns"]), int(self.values["Rows"])

    @property
    def position(self) -> tuple[float, ...]:
        """Centre of the first pixel, mm, LPS; empty without one."""
        return self.numbers("ImagePositionPatient", 3)

    @property
    def plane(self) -> tuple[float, ...]:
        """Directions along a row and along a column (LPS), distances between rows and between columns (mm)."""
        orientation, spacing = self.numbers("ImageOrientationPatient", 6), self.numbers("PixelSpacing", 2)
        return (*orientation, *spacing) if orientation and spacing else ()

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept from stored numbers to values."""
        slope, intercept = self.numbers("RescaleSlope", 1), self.numbers("RescaleIntercept", 1)
        return (slope or (1.0,))[0], (intercept or (0.0,))[0]

    @property
    def localizer(self) -> bool:
        """Whether it was made to plan other images on."""
        return any("LOCALIZER" in self.text(keyword).upper() for keyword in ("ImageType", "FrameType"))


def read_frames(path: Path) -> list[Frame]:
    """Frames of an image; none of a file that is no DICOM, or holds no image.

    Args:
        path: of a file; nothing behind its header is read.

    Raises:
        Damaged: for a file that should be DICOM and cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(1024)
        named = path.name.lower().endswith(".dcm")
        if start[128:PREAMBLE] != b"DICM" and not named:
            return []
        if DEFLATED in start:  # the header itself is compressed, and may stand for a thousand times its length
            raise Damaged(str(path))
        file.seek(0)
        try:
            return list(_frames(path, file, forced=named))
        except Exception as error:  # what is wrong in a header, every reader finds in its own way
            raise Damaged(str(path)) from error


def _frames(path: Path, file: IO[bytes], forced: bool) -> Iterator[Frame]:
    header = dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS), force=forced)
    values = _plain(header)
    syntax = header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    tag = file.read(4)
    if not syntax.is_little_endian:
        tag = tag[1::-1] + tag[:1:-1]
    if tag not in (PIXEL_DATA, *FLOAT_PIXEL_DATA):
        # A file that is cut short has no pixels either. Where there is a transfer syntax, the class before it is whole.
        meta = header.file_meta
        if "TransferSyntaxUID" not in meta or "Image Storage" in meta.MediaStorageSOPClassUID.name:
            raise ValueError("an image without pixels")
        return
    if values.get("Modality") in NO_IMAGES:
        return
    whole = _whole(file, _bytes_of(values), not syntax.is_implicit_VR, syntax.is_little_endian)
    shared = _grouped(header.get("SharedFunctionalGroupsSequence") or ())
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    count = int(values.get("NumberOfFrames") or 1)
    if own and len(own) != count:
        raise ValueError("as many functional groups as frames expected")
    for index in range(max(1, len(own))):
        functional = {**shared, **_grouped(own[index : index + 1])}
        yield Frame(path, index, count, str(syntax), whole, tag != PIXEL_DATA, {**values, **functional})


def _plain(header: Dataset) -> dict[str, Any]:
    """Attributes of a header that are no sequences, but for values that are not what they should be."""
    values = {}
    for tag in header.keys():  # noqa: SIM118 - a dataset itself goes over its values
        with suppress(ValueError, TypeError, OverflowError):
            element = header[tag]
            if element.VR != "SQ":
                values[element.keyword] = element.value
    return values


def _grouped(items: Iterable[Dataset]) -> dict[str, Any]:
    """Attributes in the functional groups of a frame, or of all."""
    groups = (element.value[0] for item in items for element in item if element.VR == "SQ" and element.value)
    return {keyword: value for group in groups for keyword, value in _plain(group).items()}


def _bytes_of(values: Mapping[str, Any]) -> int:
    """Bytes that the pixels of a file take when they are not compressed."""
    count = int(values.get("NumberOfFrames") or 1) * int(values.get("SamplesPerPixel") or 1)
    return int(values["Columns"]) * int(values["Rows"]) * count * int(values["BitsAllocated"]) // 8


def _whole(file: IO[bytes], needed: int, explicit: bool, little: bool) -> bool:
    """Whether the pixels that follow, whose tag has been read, are all there; none of them is read."""
    if explicit:  # unless the header says so and is not
        file.seek(2 if file.read(2).isalpha() else -2, os.SEEK_CUR)
    length = int.from_bytes(file.read(4), "little" if little else "big")
    end = os.fstat(file.fileno()).st_size
    if length != UNDEFINED:
        return needed <= length <= end - file.tell()
    while (tag := file.read(4)) == ITEM:
        file.seek(int.from_bytes(file.read(4), "little"), os.SEEK_CUR)
    return tag == DELIMITER
