"""The pixels after a header: whether they are there, and a copy of their file where ITK misreads its header."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid
from pydicom.valuerep import DSfloat

from bundle.dicom.files import is_as_declared, open_dicom, start_of
from bundle.system.on_demand import itk

PIXEL_DATA, FLOAT_PIXEL_DATA = b"\xe0\x7f\x10\x00", (b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00")
ITEM, DELIMITER, UNDEFINED = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", 0xFFFFFFFF
OFFSET = 4
"""Bytes of an item of the list of frames, which comes before compressed ones."""
MOST_SEGMENTS = 15
"""Most parts of a frame that is compressed by RLE, whose number begins it."""
EXPLICIT = (b"OB", b"OW", b"OF", b"OD", b"OV", b"UN")
PALETTE = tuple(
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
)
NEEDED = (
    *("SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "PixelData"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *PALETTE),
)
"""What ITK needs to read pixels and to place a planar image."""
STORED = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", *PALETTE),
)
"""How pixels are stored."""
GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Pixels:
    """The element of a file's pixels, whose tag has been read.

    Attributes:
        floats: whether they are floating-point numbers.
        little: whether the lowest byte of a number is the first.
    """

    floats: bool
    little: bool

    def times(self, file: IO[bytes], needed: int, frames: int, syntax: str) -> int:
        """How many times the file holds the pixels of so many bytes and frames, none of which is read.

        Their length says it, or where they are compressed the list of their frames, if there is one. 0 if some are
        lacking.
        """
        # Read as a length, the name of a type would be odd, which no length is.
        file.seek(2 if file.read(2) in EXPLICIT else -2, os.SEEK_CUR)
        length = int.from_bytes(file.read(4), "little" if self.little else "big")
        place = file.tell()
        if length != UNDEFINED:
            return length // max(needed, 1) if length <= file.seek(0, os.SEEK_END) - place else 0
        items = []
        while (tag := file.read(4)) == ITEM:
            items.append(int.from_bytes(file.read(4), "little"))
            segments = int.from_bytes(file.read(min(4, items[-1])), "little")
            # ITK ends the process at a frame of no segments, such as the zeros that a broken copy leaves.
            if syntax == RLELossless and 1 < len(items) <= frames + 1 and not 0 < segments <= MOST_SEGMENTS:
                return 0
            file.seek(max(items[-1] - 4, 0), os.SEEK_CUR)
        listed = items[0] // OFFSET if items else 0
        return max(listed // frames, 1) if tag == DELIMITER else 0


def pixels_ahead(file: IO[bytes]) -> Pixels | None:
    """The pixels that begin at the current place in a file; None if there are none."""
    tag = file.read(4)
    little = not tag.startswith(PIXEL_DATA[1::-1])
    if not little:
        tag = tag[1::-1] + tag[:1:-1]
    return Pixels(tag != PIXEL_DATA, little) if tag in (PIXEL_DATA, *FLOAT_PIXEL_DATA) else None


def bytes_of(values: Mapping[str, Any]) -> int:
    """Bytes that the pixels of a file take when they are not compressed."""
    samples = int(values.get("SamplesPerPixel") or 1)
    if "422" in str(values.get("PhotometricInterpretation")):  # two pixels share their colours
        samples -= 1
    count = int(values.get("NumberOfFrames") or 1) * samples
    return int(values["Columns"]) * int(values["Rows"]) * count * int(values["BitsAllocated"]) // 8


def unread(values: Mapping[str, Any]) -> str:
    """Why pixels of one number each are none that ITK reads as they are meant, and what to do; empty if they are.

    ITK takes what is called colours to be three numbers each, and ends the process at a palette that is not whole.

    Args:
        values: attributes of ``STORED``; of the data of a palette their length.
    """
    bits, kind = int(values["BitsAllocated"]), str(values.get("PhotometricInterpretation") or GREY[1]).strip()
    if bits < 8:
        return f"its pixels have {bits} bit each, expected 8, 16 or 32; convert it to NIfTI"
    if kind == "PALETTE COLOR":
        whole = all(_is_whole(*map(values.get, PALETTE[colour : colour + 2])) for colour in (0, 2, 4))
        what = "its palette is in segments, or not as long as it says, which is not read; convert it to grey values"
        return "" if whole else what
    if kind not in GREY:
        return f"its PhotometricInterpretation is {kind} and it has one value per pixel, expected {' or '.join(GREY)}"
    return ""


def _is_whole(descriptor: Any, length: Any) -> bool:
    """Whether the data of one colour of a palette are as long as its descriptor says: entries, first entry, bits."""
    try:
        entries, _, bits = map(int, descriptor)
        return bits in (8, 16) and length == (entries or 2**16) * bits // 8
    except (TypeError, ValueError):
        return False


def itk_header(path: Path, rescale: tuple[float, float] | None = None) -> Any:
    """What ITK finds in the header of a file, or else of a copy with what matters; None if it can read neither."""
    header = _itk_header(path)
    if header is None:
        with TemporaryDirectory() as folder, suppress(Exception):
            header = _itk_header(_copy(path, rescale, Path(folder) / "copy"))
    return header


def as_itk_reads(
    paths: Sequence[Path], rescales: Sequence[tuple[float, float] | None], folder: Path
) -> tuple[list[Path], list[float]]:
    """Files whose pixels ITK reads with the right slopes and intercepts.

    Args:
        paths: the files.
        rescales: slope and intercept of each; None leaves them to ITK, which also looks elsewhere.
        folder: for copies of those whose header ITK cannot read, or misreads: empty and ambiguous values, a missing
            preamble, a transfer syntax that is absent or wrong.

    Returns:
        The files, and what is left to add to the values of each: ITK refuses an intercept that takes the sign from
        signed numbers.

    Raises:
        RuntimeError: when ITK can read neither a file nor its copy in this way.
    """
    found, left = [], []
    for number, (path, rescale) in enumerate(zip(paths, rescales, strict=True)):
        readable, added = path, 0.0
        if not _read_so(path, rescale):
            try:
                readable = _copy(path, rescale, folder / str(number))
                if rescale and not _read_so(readable, rescale):
                    rescale, added = (rescale[0], 0.0), rescale[1]
                    readable = _copy(path, rescale, folder / str(number))
            except Exception as error:  # pydicom raises every kind
                raise RuntimeError(f"{path.name}: {error}") from error
            if not _read_so(readable, rescale):
                raise RuntimeError(f"{path.name}: its header cannot be read by ITK")
        found.append(readable)
        left.append(added)
    return found, left


def _read_so(path: Path, rescale: tuple[float, float] | None) -> bool:
    header = _itk_header(path)
    if header is None:
        return False
    return rescale is None or np.allclose((header.GetRescaleSlope(), header.GetRescaleIntercept()), rescale)


def _itk_header(path: Path) -> Any:
    if not is_as_declared(start_of(path)):
        return None
    header = itk.GDCMImageIO.New(FileName=str(path))
    try:
        if not header.CanReadFile(str(path)):
            return None
        header.ReadImageInformation()
    except RuntimeError:
        return None
    return header


def _copy(path: Path, rescale: tuple[float, float] | None, copy: Path) -> Path:
    """Copy what ITK needs from a file, in the form that the standard wants; nothing names the patient."""
    with open_dicom(path) as file:
        source = dcmread(file, force=True)
    made = Dataset()
    for keyword in NEEDED:
        with suppress(KeyError, ValueError, TypeError):
            made[keyword] = source[keyword]
    if rescale not in (None, (1, 0)):
        made.RescaleSlope, made.RescaleIntercept = (DSfloat(number, auto_format=True) for number in rescale)
    if "Storage" not in UID(str(made.get("SOPClassUID", ""))).name:  # absent, or a maker's own, which GDCM refuses
        made.SOPClassUID = MRImageStorage
    made.SOPInstanceUID = generate_uid(prefix=None)
    named = UID(str(source.file_meta.get("TransferSyntaxUID", "")))
    little = source.original_encoding[1] is not False
    made.file_meta = FileMetaDataset()
    compressed = named.is_transfer_syntax and named.is_encapsulated
    made.file_meta.TransferSyntaxUID = (
        named if compressed else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    )
    made.save_as(copy, enforce_file_format=True)
    return copy
