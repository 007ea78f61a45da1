"""Files and folders that exist completely or not at all."""

from __future__ import annotations

import atexit
import gzip
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from bundle.system.limits import regular_file

_PACKAGE = Path(__file__).resolve().parents[1]
BUNDLE_ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The folder of ``configs/`` and ``models/``: in a wheel the package itself, else the checkout."""
CONFIGS = BUNDLE_ROOT / "configs"
"""The configurations that come with the bundle."""
GZIP = b"\x1f\x8b"
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
LONGEST_START = 512
LARGEST_PART = 2**20
NO_MEMBER = "Not a gzipped file"
"""How Python says that no further member of a gzip file follows."""


def flush(path: Path) -> None:
    """Make sure that the content of a file, or the names in a folder, are on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def moved_into_place(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give writers that need a name a temporary one beside the file; at the end, flush it and move it into place.

    If the body or the disk fails, an older file stays as it was and nothing is left under the temporary name.

    Args:
        path: final name; missing folders are created.
        previous: new name for an older file; None replaces that file.

    Yields:
        The name to write to, with the same suffix as the final one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    try:
        yield partial
        flush(partial)
        if previous is not None and path.exists():
            path.replace(previous)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # A file system that cannot flush names keeps them in order anyway.
    with suppress(OSError):
        flush(path.parent)


@contextmanager
def written_whole(path: Path, mode: str = "w", previous: Path | None = None) -> Iterator[IO[Any]]:
    """Open a file under a temporary name, and move it into place at the end (see ``moved_into_place``).

    Args:
        path: final name; missing folders are created.
        mode: ``"w"`` for text in UTF-8 (line ends are kept; bytes of file names that are not UTF-8 are escaped),
            ``"wb"`` for bytes.
        previous: new name for an older file; None replaces that file.

    Yields:
        The open file.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with moved_into_place(path, previous) as partial, partial.open(mode, **text) as file:
        yield file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder beside the final one; at the end, flush it and move it into place.

    If the body or the disk fails, an older folder stays as it was and nothing is left under the temporary name. A
    process that is killed may leave a temporary folder; the next one that writes this folder removes it, or puts the
    older folder back. Only one process at a time may write a folder.

    Args:
        path: final name; missing folders above it are created.

    Yields:
        The folder to fill, empty.
    """
    partial, old = _temporary_folders(path)
    remove_leftovers(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        for written in (*partial.rglob("*"), partial):
            flush(written)
        # If it were deleted under its own name, the folder would be incomplete for a moment.
        if path.exists():
            path.rename(old)
        partial.rename(path)
    finally:
        remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """Remove what ``whole_folder`` may have left when it failed or was killed; the only content is put back."""
    partial, old = _temporary_folders(path)
    shutil.rmtree(partial, ignore_errors=True)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _temporary_folders(path: Path) -> tuple[Path, Path]:
    """Where the new content of a folder is written, and where the old one is deleted."""
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")


@cache
def silent_exit() -> None:
    """Suppress what C libraries print when the process ends, such as HDF5 about a damaged file it could not close."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Suppress what C libraries print to the standard error.

    All threads of a process share it, so it is left alone in threads that a server starts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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


def mistaken_for(path: Path) -> str:
    """What a file that cannot be read really is, and what to do; empty if its first bytes do not tell."""
    try:
        with uncompressed(path) as file:
            start, packed = file.read(LONGEST_START), isinstance(file, gzip.GzipFile)
    except (OSError, EOFError, ValueError, zlib.error):
        return ""
    for (place, sign), (what, names) in IMAGES.items():
        if start[place:].startswith(sign) and not path.name.lower().endswith(names):
            fitting = [name for name in names if name.endswith("z") == packed]
            unpack = "" if fitting else "decompress it and "
            return f"{what} by its content; {unpack}call it {(*fitting, *names)[0]}"
    word = start[:64].lstrip().lower()
    return next((what for sign, what in STARTS.items() if word.startswith(sign.lower())), "")
