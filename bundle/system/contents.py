"""What is in a file: its content without compression, and what it is by its first bytes or its name."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bundle.system.limits import Refused, regular_file

GZIP = b"\x1f\x8b"
EMPTY = "an empty file; copy it again"
POINTER = "a pointer to a file that is not here; get its content (git annex get, git lfs pull)"
WEB_PAGE = "a web page, as a failed download leaves it; download the file again"
POINTERS = (b"/annex/objects/", b"version https://git-lfs")
"""First bytes of the pointers of git-annex and Git LFS, whose content is elsewhere."""
STARTS = {
    **dict.fromkeys(POINTERS, POINTER),
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"BZh": "compressed by bzip2; decompress it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz; decompress it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; decompress it, or compress it by gzip",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x1f\x9d": "compressed by compress; decompress it, or compress it by gzip",
    GZIP: "compressed twice by gzip; decompress it once",
    b"%PDF": "a PDF; export its image",
}
"""First bytes, once decompressed by gzip, of files that are not what their names say; what they are, what to do."""
IMAGES = {
    (344, b"n+1\0"): ("NIfTI", (".nii", ".nii.gz")),
    (4, b"n+2\0"): ("NIfTI", (".nii", ".nii.gz")),
    (0, b"NRRD00"): ("NRRD", (".nrrd", ".nhdr")),
    (0, b"ObjectType"): ("MetaImage", (".mha", ".mhd")),
    (0, b"\0\0\0\1\0\0"): ("MGH", (".mgh", ".mgz", ".mgh.gz")),
    (0, b"\x93NUMPY"): ("an array of NumPy", (".npy",)),
    (0, b"\x89PNG"): ("PNG", (".png",)),
    (0, b"\xff\xd8\xff"): ("JPEG", (".jpg", ".jpeg")),
    (0, b"II*\0"): ("TIFF", (".tif", ".tiff")),
    (0, b"MM\0*"): ("TIFF", (".tif", ".tiff")),
}
"""Place and bytes, once decompressed by gzip, by which an image is known; what it is, and the names it should have."""
NIFTI = "which is not read; convert it to NIfTI"
PNG = "which is not read; save it as PNG"
UNREAD: dict[str, tuple[tuple[str, ...], tuple[bytes, ...]]] = {
    f"BRIK of AFNI, {NIFTI} (3dAFNItoNIFTI)": ((".head", ".brik"), ()),
    f"a file of BrainVoyager, {NIFTI} (in BrainVoyager)": ((".vmr", ".v16", ".vtc", ".vmp", ".fmr", ".msk"), ()),
    f"an image of MRtrix, {NIFTI} (mrconvert)": ((".mif", ".mih"), (b"mrtrix image",)),
    f"a file of VTK, {NIFTI} (3D Slicer)": ((".vti", ".vtk", ".vtp", ".vtu"), (b"# vtk DataFile", b"<VTKFile")),
    f"ECAT, {NIFTI}": ((".v",), (b"MATRIX7",)),
    f"GIPL, {NIFTI} (c3d)": ((".gipl",), ()),
    f"Interfile, {NIFTI}": ((".hv", ".h33", ".i33"), (b"!INTERFILE", b"INTERFILE")),
    f"a file of MATLAB, {NIFTI} (niftiwrite)": ((".mat",), (b"MATLAB 5.0",)),
    f"MINC, {NIFTI} (mnc2nii)": ((".mnc", ".mnc2"), (b"CDF\1", b"CDF\2")),
    f"MRC, {NIFTI}": ((".mrc",), ()),
    f"PAR/REC of Philips, {NIFTI} (dcm2niix)": ((".par", ".rec"), (b"# === DATA DESCRIPTION",)),
    f"ISQ of Scanco, {NIFTI}": ((".isq", ".isq;1"), (b"CTDATA-HEADER",)),
    f"a raw file of Bruker, {NIFTI}": (("2dseq",), ()),
    f"a file of a microscope, {NIFTI}": ((".czi", ".lif", ".nd2", ".oib", ".ims"), (b"ZISRAWFILE",)),
    f"GIF, {PNG}": ((".gif",), (b"GIF8",)),
    f"JPEG 2000, {PNG}": ((".jp2", ".j2k"), (b"\0\0\0\x0cjP  ",)),
    f"WebP, {PNG}": ((".webp",), ()),
    f"HDF5 of another program, {NIFTI}": ((), (b"\x89HDF",)),
    "voxels without their header; name the header (.mhd, .nhdr), or write one": ((".raw", ".zraw", ".bin"), ()),
}
"""What is not read and what to do, by the end of its name or its first bytes."""
TAR, TAR_AT = b"ustar", 257
LONGEST_START = 512
LARGEST_PART = 2**20
TEXT_NUMBER = re.compile(rb"[^\s,;]+")
EITHER, BLOCK = 47, 2**16
"""Window of zlib that reads its own and gzip's form, and how many bytes it is given at once."""
DAMAGED = "its compressed voxels are damaged; copy it again"
NO_MEMBER = "Not a gzipped file"
"""How Python says that no further member of a gzip file follows."""


class _Members(gzip.GzipFile):
    """Content of the members of a gzip file; as for zlib and ITK, bytes after them do not count."""

    def read(self, size: int | None = -1) -> bytes:
        rest = float("inf") if size is None or size < 0 else size
        parts = []
        while rest > 0:
            try:
                part = self.read1(int(min(rest, LARGEST_PART)))
            except gzip.BadGzipFile as error:
                if not str(error).startswith(NO_MEMBER):
                    raise
                break
            if not part:
                break
            parts.append(part)
            rest -= len(part)
        return b"".join(parts)


@contextmanager
def uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """Content of a file, decompressed if it begins like gzip, whatever its name.

    Raises:
        Refused: when it is not a file.
    """
    with regular_file(path).open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not compressed:
            yield file
            return
        with _Members(fileobj=file) as content:
            yield content  # type: ignore[misc]


def length_of(file: IO[bytes]) -> int:
    """Bytes from the current place in an open file to its end."""
    length = 0
    while block := file.read(2**20):
        length += len(block)
    return length


def check_held(held: int, needed: int) -> None:
    """Refuse voxels of fewer bytes than needed."""
    if held < needed:
        raise Refused(f"its voxels need {needed} bytes, and {held} are there; cut short, copy it again")


def check_numbers_held(text: bytes, needed: int) -> None:
    """Refuse numbers in text that ITK does not read: too few, or without anything after the last."""
    held = len(TEXT_NUMBER.findall(text))
    if held < needed:
        raise Refused(f"its text has {held} numbers of {needed}; cut short, copy it again")
    if held == needed and TEXT_NUMBER.fullmatch(text[-1:]):
        raise Refused("its text ends with its last number, which ITK does not read; end the line")


def check_packed(path: Path, start: int, length: int | None, needed: int) -> None:
    """Refuse compressed voxels of fewer bytes than needed, or that are not those which were compressed.

    Args:
        path: the file.
        start: where they begin.
        length: bytes of the file that they take; None for all that follow.
        needed: bytes that they expand to.
    """
    held, stream = 0, zlib.decompressobj(EITHER)
    with path.open("rb") as file:
        file.seek(start)
        rest = path.stat().st_size - start if length is None else length
        try:
            while rest > 0 and not stream.eof and (block := file.read(min(rest, BLOCK))):
                held += len(stream.decompress(block))
                rest -= len(block)
        except zlib.error as error:
            raise Refused(DAMAGED) from error
    check_held(held, needed)
    if not stream.eof:
        raise Refused(DAMAGED)


def is_held(path: Path, needed: int) -> bool:
    """Whether a file holds as many bytes as needed, once decompressed.

    The length at the end of gzip, modulo 2^32, tells nearly always; else the file is decompressed.
    """
    with uncompressed(path) as file:
        if not isinstance(file, gzip.GzipFile):
            return path.stat().st_size >= needed
        with path.open("rb") as packed:
            packed.seek(-4, os.SEEK_END)
            if int.from_bytes(packed.read(4), "little") == needed % 2**32:
                return True
        return length_of(file) >= needed


def _start(path: Path) -> tuple[bytes, bool]:
    """First bytes of a file once decompressed, and whether it was compressed; none if it cannot be read."""
    try:
        with uncompressed(path) as file:
            return file.read(LONGEST_START), isinstance(file, gzip.GzipFile)
    except (OSError, EOFError, ValueError, zlib.error):
        return b"", False


def mistaken_for(path: Path) -> str:
    """What a file that cannot be read really is, and what to do; empty if its first bytes do not tell."""
    start, packed = _start(path)
    for (place, sign), (what, names) in IMAGES.items():
        if start[place:].startswith(sign) and not path.name.lower().endswith(names):
            fitting = [name for name in names if name.endswith("z") == packed]
            unpack = "" if fitting else "decompress it and "
            return f"{what} by its content; {unpack}call it {(*fitting, *names)[0]}"
    if path.is_file() and not path.stat().st_size:
        return EMPTY
    if start[TAR_AT:].startswith(TAR):
        return "an archive of tar; unpack it"
    word = start[:64].lstrip().lower()
    return next((what for sign, what in STARTS.items() if word.startswith(sign.lower())), "")


def unread_format(path: Path) -> str:
    """What a file is that is of a format that is not read, by its name or its first bytes; else empty."""
    name = path.name.lower().removesuffix(".gz")
    for what, (names, _) in UNREAD.items():
        if name.endswith(names):
            return what
    start, _ = _start(path)
    return next((what for what, (_, signs) in UNREAD.items() if start.startswith(signs)), "")


def not_an_image(path: Path) -> str:
    """What a file is that cannot be read as an image, and what to do; empty if neither bytes nor name tell."""
    return mistaken_for(path) or unread_format(path)
