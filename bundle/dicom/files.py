"""The files of a DICOM folder, with links followed and every file once; the first bytes say what a file is."""

from __future__ import annotations

import os
import zlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from bundle.system.contents import GZIP, POINTER, POINTERS
from bundle.system.limits import elsewhere

START = 1024
"""Bytes of a file that say what it is."""
PREAMBLE = 128
MAGIC = b"DICM"
NAMED = (".dcm", ".dicom", ".dic", ".ima")
"""Names of files that should be DICOM."""
NO_SLICES = ("DICOMDIR", "THUMBS.DB")
FIRST_GROUPS = (2, 8)
"""Groups that a file without a preamble may begin with: that of its own header, or of the image's identity."""
LONGEST_FIRST = 256
"""Most bytes of the first element, whose length has to be trusted where nothing names its type."""
REPRESENTATIONS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
OWN_LENGTH, SYNTAX = b"\2\0\0\0", b"\2\0\x10\0UI"
"""First bytes of the elements with the length of a file's own header, and with the transfer syntax."""
SEGMENTATIONS = ("SEG", "RTSTRUCT")
IMAGES = ("CT", "MR", "PT", "NM", "US")
"""Modalities that most images have, and other objects of the same scanners."""
UNOPENED = "a folder that cannot be opened; see its permissions"


@dataclass
class Found:
    """Files below a folder.

    Attributes:
        files: in the order of their names.
        lost: what cannot be opened, and why.
    """

    files: list[Path] = field(default_factory=list)
    lost: dict[Path, str] = field(default_factory=dict)


def files_below(folder: Path) -> Found:
    """Every file below a folder, once, however many names and links it has.

    Args:
        folder: links to folders are followed, except those that lead back. Hidden folders are left out, and so are
            hidden files that are not DICOM.
    """
    found = Found()
    seen = {_identity(place) for place in (folder.resolve(), *folder.resolve().parents)}

    def unopened(error: OSError) -> None:
        found.lost[Path(error.filename)] = UNOPENED

    for place, folders, names in os.walk(folder, followlinks=True, onerror=unopened):
        folders[:] = [name for name in sorted(folders) if name[0] != "." and _is_new(Path(place, name), seen)]
        for name in sorted(names):
            path = Path(place, name)
            hidden = name.startswith(".") and not _hidden_dicom(path)
            if (lost := elsewhere(path, NAMED)) and not (hidden and path.is_symlink()):
                found.lost[path] = lost
            elif not hidden and path.is_file() and _is_new(path, seen):
                found.files.append(path)
    return found


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a file or folder is seen for the first time; it is then added to those seen."""
    identity = _identity(path)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _hidden_dicom(path: Path) -> bool:
    """Whether a hidden file has the preamble of DICOM; what macOS puts beside a file (``._name``) has none."""
    try:
        return path.is_file() and start_of(path)[PREAMBLE:].startswith(MAGIC)
    except OSError:
        return False


def start_of(path: Path) -> bytes:
    """First bytes of a file."""
    with path.open("rb") as file:
        return file.read(START)


def open_dicom(path: Path) -> IO[bytes]:
    """An open file, with a preamble of zeros if that is all it lacks."""
    file = path.open("rb")
    if file.read(len(MAGIC)) == MAGIC:
        file.seek(0)
        with file:
            return BytesIO(bytes(PREAMBLE) + file.read())
    file.seek(0)
    return file


def read_header(path: Path, keywords: list[str] | None = None) -> Dataset:
    """What is in a file but its pixels: the attributes of the given keywords, or all."""
    with open_dicom(path) as file:
        return dcmread(file, stop_before_pixels=True, specific_tags=keywords, force=True)


def is_named(path: Path) -> bool:
    """Whether a file's name says that it is DICOM."""
    return path.name.lower().endswith(NAMED)


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM does: with its magic word, after a preamble or not, or with its first element."""
    if MAGIC in (start[PREAMBLE : PREAMBLE + len(MAGIC)], start[: len(MAGIC)]):
        return True
    return any(_is_element(start, order) for order in ("little", "big"))


def _is_element(start: bytes, order: str) -> bool:
    """Whether a file begins with an element of the first groups, and another one follows."""
    little = order == "little"

    def number(first: int, count: int) -> int:
        return int.from_bytes(start[first : first + count], "little" if little else "big")

    if len(start) < 16 or number(0, 2) not in FIRST_GROUPS:
        return False
    if start[4:6] in REPRESENTATIONS:
        return True
    length = number(4, 4)
    following = number(8 + length, 2)
    return little and length % 2 == 0 and length <= LONGEST_FIRST and following == number(0, 2)


def is_as_declared(start: bytes) -> bool:
    """Whether a file has a preamble and a header of its own, whose transfer syntax is how the rest is written.

    Readers other than pydicom trust it, and take gigabytes and minutes where it is wrong.
    """
    own = PREAMBLE + len(MAGIC)
    if start[PREAMBLE:own] != MAGIC or start[own : own + 4] != OWN_LENGTH:
        return False
    rest = own + 12 + int.from_bytes(start[own + 8 : own + 12], "little")
    place = start.find(SYNTAX, own, rest)
    if place < 0 or len(start) < rest + 6:
        return False
    length = int.from_bytes(start[place + 6 : place + 8], "little")
    implicit = start[place + 8 : place + 8 + length].rstrip(b"\0 ") == ImplicitVRLittleEndian.encode()
    return implicit != (start[rest + 4 : rest + 6] in REPRESENTATIONS)


def why_not_read(start: bytes) -> str:
    """Why a file that is or should be DICOM is not read; empty if no reason is known."""
    if start.startswith(POINTERS):
        return POINTER
    if start.startswith(GZIP):
        try:
            inside = zlib.decompressobj(31).decompress(start, START)
        except zlib.error:
            return ""
        return "compressed by gzip; decompress it" if is_dicom(inside) else ""
    return ""


def kind_of_name(path: Path) -> str:
    """The suffix of a file's name in lower case; empty if it has no letter, like the end of a UID."""
    suffix = path.suffix.lower()
    return suffix if any(letter.isalpha() for letter in suffix) else ""


def cannot_be_told(path: Path, kinds: AbstractSet[str]) -> bool:
    """Whether a file might be a damaged slice: it is named like one, and is neither DICOM nor text.

    Args:
        path: the file.
        kinds: suffixes that slices have, by :func:`kind_of_name`.
    """
    if path.name.startswith(".") or path.name.upper() in NO_SLICES or kind_of_name(path) not in kinds:
        return False
    start = start_of(path)
    return not is_dicom(start) and not _is_text(start)


def _is_text(start: bytes) -> bool:
    return bool(start) and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def kind_of(path: Path) -> str:
    """Modality of an object that is not read, or what tells more where images have the same: the name of its class."""
    header = read_header(path, ["Modality", "SOPClassUID"])
    kind, modality = UID(str(header.get("SOPClassUID") or "")), str(header.get("Modality") or "")
    if modality in IMAGES and "Image Storage" not in kind.name:
        return f"{modality} of the class {kind.name.removesuffix(' Storage')}"
    return modality


def segmentations_in(folder: Path) -> str:
    """Modalities of the segmentations in a folder, as ``RTSTRUCT and SEG``; empty without any."""
    files = (path for path in files_below(folder).files if is_dicom(start_of(path))) if folder.is_dir() else ()
    return " and ".join(sorted({kind_of(path) for path in files} & set(SEGMENTATIONS)))


def not_read(count: int, first: str, reason: str = "") -> str:
    """Message about files that cannot be read.

    Args:
        count: how many.
        first: name of the first.
        reason: why that one cannot, if it is known.
    """
    what = f"{count} of its files cannot be read, the first is {first}"
    return f"{what}: {reason}" if reason else f"{what}; the volume may have gaps, copy it again"


def no_image(path: Path) -> str:
    """What a file is that holds no image, and what to do."""
    if not is_dicom(start_of(path)):
        return "not a DICOM file"
    if read_header(path, []).file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return "a DICOMDIR, the list of what a medium holds; name the folder of an image"
    return f"a DICOM file without an image that is read ({kind_of(path) or 'a report?'}); convert it to NIfTI"
