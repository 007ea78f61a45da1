"""Headers of DICOM files: what they say of an image, and nothing that names a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

TAGS = [
    "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesDescription",
    "SeriesNumber", "InstanceNumber", "ImageType", "ImagesInAcquisition", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "BitsAllocated", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "EchoTime",
    "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue", "TriggerTime",
]  # fmt: skip
"""All that is read of a header: nothing that names a patient."""


def read_header(path: Path) -> Dataset:
    """What a file says of its pixels.

    Raises:
        EOFError: when it ends before them, or within them.
    """
    with path.open("rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        rest = path.stat().st_size - file.tell()
    kind = header.file_meta.MediaStorageSOPClassUID.name
    if "Image Storage" in kind and ("Rows" not in header or "Columns" not in header):
        raise EOFError("ends before its pixels")
    bits = int(header.get("BitsAllocated", 8)) * int(header.get("SamplesPerPixel", 1)) * frames(header)
    compressed = header.file_meta.TransferSyntaxUID.is_compressed
    if not compressed and rest < int(header.get("Rows", 0)) * int(header.get("Columns", 0)) * bits // 8:
        raise EOFError("ends within its pixels")
    return header


def frames(header: Dataset) -> int:
    """How many images a file holds."""
    return int(header.get("NumberOfFrames") or 1)


def numbers(header: Dataset, name: str) -> np.ndarray:
    """Values of an attribute; empty without."""
    return np.array(header.get(name) or [], dtype=float).ravel()
