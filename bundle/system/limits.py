"""Limits on what a file may declare, so that a small file cannot fill the memory."""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from bundle.system.files import identity

MOST_VALUES = 1024**3
"""Voxels times channels of an image; 4 GiB in single precision."""
MOST_BYTES = 2**28
"""Size of a file of points, a surface or a datalist; these are read as a whole."""
CLOUD = ".icloud"
"""What ends the name of a file whose content is in iCloud alone; a dot begins it."""
EXPANSION = 1100
"""Most bytes that one byte of a file can expand to: deflate, which all formats here use, reaches 1032."""

# The dimension of a 1-D array in HDF5, in an object header of the older form (without a signature) and of the newer.
HDF5_LENGTH_1 = re.compile(rb"\x01\x00[\x10-\x28]\x00[\x00-\xff]\x00{3}\x01\x01[\x00\x01]\x00{5}(.{8})", re.DOTALL)
HDF5_LENGTH_2 = re.compile(rb"\x01[\x0c-\x14]\x00[\x00-\xff](?:..)?\x02\x01[\x00\x01]\x01(.{8})", re.DOTALL)
HDF5_HEADER_2 = re.compile(rb"OHDR|OCHK")
HDF5_HEADER_BYTES = 1024
# In either form of header: the type of a string of any length, and at the end where the reference to its text lies.
HDF5_STRING = re.compile(rb"\x19[\x01\x11\x21][\0\1]\0\x10\0{3}.{12,64}?\x03\x01(.{8})\x10\0{7}", re.DOTALL)
HDF5_UNREAD = 4
"""The first strings of a transform of ITK name versions and the system. They may be empty; nothing reads them."""
MATLAB_HEADER = 20
MATLAB_NUMBERS = {0: 8, 10: 4}
"""Bytes of a number by its kind in MATLAB 4."""
OTHER_TRANSFORMS = {
    re.compile(rb'(?m)^\(Transform "'): "a parameter file of elastix; have transformix write its field (-def all)",
    re.compile(rb"\A\s*(?:#.*\s+)*(?:[-+.\deE]+\s+){15}[-+.\deE]+\s*\Z"): (
        "a matrix alone, as FSL (FLIRT) and others write it in a frame of their own; convert it to a transform of ITK "
        "(c3d_affine_tool with -fsl2ras and -oitk)"
    ),
}
"""Texts that are called like a transform of ITK; what they are, what to do."""


class Refused(ValueError):
    """A file is not read; the message gives the reason after the file's name."""


def regular_file(path: str | Path) -> Path:
    """The path of a file.

    Raises:
        FileNotFoundError: when it is not there.
        Refused: when it is a folder, or a device or pipe, from which reading would never end, or may not be opened.
    """
    path = Path(path)
    if not exists(path):
        raise FileNotFoundError(f"file not found: {path}")
    if not path.is_file():
        raise Refused(f"{'a folder' if path.is_dir() else 'a device or a pipe'}, expected a file")
    if not os.access(path, os.R_OK):
        raise Refused("a file that may not be opened; see its permissions")
    return path


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a path exists; False for a name that no file can have, such as none."""
    try:
        return os.fspath(path) != "" and Path(path).exists()
    except (OSError, ValueError):
        return False


def is_same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, however they are written and through links; False for one that is missing."""
    return exists(path) and exists(other) and identity(path) == identity(other)


def first_paths(paths: Iterable[str]) -> dict[str, str]:
    """For each path the first of those that lead to the same file."""
    known: dict[object, str] = {}
    return {path: known.setdefault(identity(path) if exists(path) else path, path) for path in paths}


def elsewhere(path: Path, suffixes: tuple[str, ...]) -> str:
    """Why the content of a file is not here, and what to do; empty if it is.

    Args:
        path: a link, a file, or what iCloud leaves in the place of one (``.name.icloud``).
        suffixes: endings of names that count in iCloud, in lower case.
    """
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere; get its content, or remove it"
    in_cloud = path.name.startswith(".") and path.name.endswith(CLOUD)
    return "in iCloud alone; download it" if in_cloud and path.name[: -len(CLOUD)].lower().endswith(suffixes) else ""


def spelt_otherwise(path: str | os.PathLike[str]) -> str:
    """What to do about a missing file that is a link, or that is there in other letters or as other systems spell it.

    The same ``ü`` may be one character or two, letters may be small or capital, and blanks or quotes copied along.
    """
    if exists(str(path).replace("\\", "/")):
        return "; write / for \\ in it"
    try:
        names = sorted(one.name for one in Path(path).parent.iterdir())
    except (OSError, ValueError):
        return ""
    if f".{Path(path).name}{CLOUD}" in names:
        return "; it is in iCloud alone; download it"
    if Path(path).name in names:  # as git-annex and DataLad leave it
        return "; a link that leads nowhere; get its content, or copy the file"
    alike = [name for name in names if _letters(name) == _letters(Path(path).name)]
    return f"; there is {ascii(alike[0])}, spelt otherwise" if alike else ""


def _letters(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip(" '\"")


def expanded(path: str | Path) -> Path:
    """A path, with the home folder for a leading ``~`` unless a file has that name."""
    try:
        return Path(path) if exists(path) else Path(path).expanduser()
    except RuntimeError:  # no user has the name that follows
        return Path(path)


def at_home(word: str) -> str:
    """A word of a command line with the home folder for ``~/``, which a shell leaves in ``--output=~/results``."""
    return str(expanded(word)) if word.startswith("~/") else word


def read_whole(path: str | Path) -> bytes:
    """Content of a file that is not unreasonably large.

    Raises:
        FileNotFoundError: when it is not there.
        Refused: when it is larger than ``MOST_BYTES``, or is not a file.
    """
    length = regular_file(path).stat().st_size
    if length > MOST_BYTES:
        raise Refused(f"a file of {length} bytes, expected at most {MOST_BYTES}; split it")
    return Path(path).read_bytes()


def check_declared(shape: Sequence[int], bytes_each: int, path: Path | None) -> None:
    """Refuse a size that is larger than the limit, or than the file can hold.

    Args:
        shape: count of numbers along each axis.
        bytes_each: size of one number.
        path: the file they are in; None if they are in another one.

    Raises:
        Refused: naming both.
    """
    count = math.prod(map(int, shape))
    if count > MOST_VALUES:
        raise Refused(f"its header declares {size(shape)} values, more than the {MOST_VALUES} that are read; crop it")
    if path is None:
        return
    length = path.stat().st_size
    if count * bytes_each > EXPANSION * length:
        raise Refused(
            f"its header declares {size(shape)} values, which a file of {length} bytes cannot hold; it is damaged"
        )


def check_hdf5(path: Path) -> None:
    """Refuse an HDF5 transform whose arrays are longer than the file can hold, or whose texts are not where it says.

    ITK allocates what the header of a data set declares, and HDF5 fills in what the file lacks. Texts have no checksum;
    HDF5 ends the process, or never ends, where they are damaged.

    Raises:
        Refused: naming the size, or the damage.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        lengths = [match[1] for match in HDF5_LENGTH_1.finditer(content)]
        for found in HDF5_HEADER_2.finditer(content):
            header = content[found.start() : found.start() + HDF5_HEADER_BYTES]
            lengths += [match[1] for match in HDF5_LENGTH_2.finditer(header)]
        for length in lengths:
            check_declared((int.from_bytes(length, "little"),), np.dtype(float).itemsize, path)
        for number, string in enumerate(HDF5_STRING.finditer(content)):
            with suppress(struct.error, OverflowError):  # it leads out of the file
                length, heap, text = struct.unpack_from("<IQI", content, int.from_bytes(string[1], "little"))
                if _hdf5_texts(content, heap).get(text) == length if heap else number < HDF5_UNREAD:
                    continue
            raise Refused("not a transform, or damaged (a text of HDF5 is not where it says); copy it again")


def _hdf5_texts(content: mmap.mmap, heap: int) -> dict[int, int]:
    """Lengths of the texts of a heap of HDF5 by their numbers; none if it does not end where it says."""
    signature, length = struct.unpack_from("<8sQ", content, heap)
    place, end, lengths = heap + 16, heap + length, {}
    while signature == b"GCOL\1\0\0\0" and place + 16 <= end:
        number, length = struct.unpack_from("<H6xQ", content, place)
        place += 16 + -(-length // 8) * 8 if number else length or end
        lengths[number] = length
    return lengths if place <= end <= len(content) else {}


def check_text(path: Path) -> bytes:
    """Content of a file that is no transform of another program in a text.

    Raises:
        Refused: naming the program.
    """
    content = read_whole(path)
    for pattern, what in OTHER_TRANSFORMS.items():
        if pattern.search(content):
            raise Refused(what)
    return content


def check_matlab(path: Path) -> None:
    """Refuse a transform in MATLAB's format whose matrices are longer than the file.

    Raises:
        Refused: when it is cut short or not such a file.
    """
    content = check_text(path)
    place = 0
    while place < len(content):
        header = content[place : place + MATLAB_HEADER].ljust(MATLAB_HEADER, b"\0")
        kind, rows, columns, imaginary, name = np.frombuffer(header, "<i4").tolist()
        bytes_each = MATLAB_NUMBERS.get(kind % 100)  # the hundreds say which of rows and columns comes first
        if bytes_each is None or min(rows, columns) < 0 or name < 1 or imaginary:
            raise Refused("not a transform: expected matrices of MATLAB 4, as ITK and ANTs write them")
        place += MATLAB_HEADER + name + rows * columns * bytes_each
    if place != len(content) or not content:
        raise Refused(f"cut short: its matrices need {place} bytes of {len(content)}")


def size(shape: Sequence[int | str]) -> str:
    """Sizes in words: ``47 x 63 x 44``."""
    return " x ".join(map(str, shape))


def refuse_missing(expected: str, *names: str | None) -> None:
    """Refuse names that nothing has, before libraries are imported, which takes seconds.

    Args:
        expected: what they should be.
        names: of files and folders; None is none.

    Raises:
        FileNotFoundError: naming the first.
    """
    for name in names:
        if name is not None and not exists(expanded(name)):
            raise FileNotFoundError(f"not found: {name}{spelt_otherwise(name) or f'; give {expected}'}")
