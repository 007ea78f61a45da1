"""Pictures that hold many slices, or parts of a larger picture, as tiles: what they are and what converts them."""

from __future__ import annotations

import re

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from bundle.dicom.files import open_dicom
from bundle.dicom.frames import Frame

SIEMENS_GROUPS = (0x0019, 0x0029)
BLOCKS = range(0x10, 0x14)
"""Blocks of a private group in which a manufacturer's elements may lie."""
SIEMENS_COUNT, SIEMENS_HEADER, UNITED_COUNT = 0x0A, 0x10, Tag(0x0065, 0x1050)
"""NumberOfImagesInMosaic of Siemens, the header that names it (CSA), and the same of United Imaging."""
NAMED_COUNT = re.compile(rb"NumberOfImagesInMosaic\0.{77}\s*(\d+)", re.DOTALL)
"""A name of 64 bytes, 20 bytes of its type, 16 of the length of its first value, and that as text."""
CONVERTED = "convert it to NIfTI by dcm2niix"


def tiling_of(frame: Frame) -> str:
    """What a file's pixels are if they are tiles, and what to do; empty if they are one slice.

    Args:
        frame: frame of the file, whose private header is read.
    """
    organised = frame.text("DimensionOrganizationType").upper()
    if organised.startswith("TILED"):
        return "its frames are tiles of one large picture (a microscope's whole slide); export one level as TIFF or PNG"
    kinds = {word.upper() for key in ("ImageType", "FrameType") for word in _words(frame, key)}
    if "MOSAIC" in kinds:
        return f"a mosaic of Siemens, all slices of a volume as tiles of one picture; {CONVERTED}"
    if frame.count > 1 or frame.text("Modality") != "MR":
        return ""
    try:
        tiles = _private_tiles(frame)
    except Exception:  # a private header may have any form; a damaged one says nothing
        return ""
    return f"a mosaic, {tiles} slices of a volume as tiles of one picture; {CONVERTED}" if tiles > 1 else ""


def _words(frame: Frame, keyword: str) -> list[str]:
    value = frame.values.get(keyword) or ()
    return [str(word) for word in ([value] if isinstance(value, str) else value)]


def _private_tiles(frame: Frame) -> int:
    """Number of tiles in the private header of Siemens or United Imaging; 0 if it names none."""
    tags = [Tag(group, block) for group in SIEMENS_GROUPS for block in BLOCKS]
    tags += [Tag(0x0019, (block << 8) + SIEMENS_COUNT) for block in BLOCKS]
    tags += [Tag(0x0029, (block << 8) + SIEMENS_HEADER) for block in BLOCKS]
    with open_dicom(frame.path) as file:
        header = dcmread(file, stop_before_pixels=True, specific_tags=[*tags, UNITED_COUNT], force=True)
    return max(_count(header, UNITED_COUNT), _of_siemens(header))


def _of_siemens(header: Dataset) -> int:
    found = [0]
    for block in BLOCKS:
        if "SIEMENS MR HEADER" in str(header.get(Tag(0x0019, block), "")):
            found.append(_count(header, Tag(0x0019, (block << 8) + SIEMENS_COUNT)))
        described = header.get(Tag(0x0029, (block << 8) + SIEMENS_HEADER))
        named = NAMED_COUNT.search(described.value) if described is not None else None
        found += [int(named[1])] if named else []
    return max(found)


def _count(header: Dataset, tag: BaseTag) -> int:
    """A private number, whose type a file need not name."""
    if tag not in header:
        return 0
    value = header[tag].value
    if isinstance(value, bytes):
        return int.from_bytes(value, "little") if len(value) == 2 else int(float(value.decode("ascii")))
    return int(value)
