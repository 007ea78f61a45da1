"""Files and folders that exist completely or not at all."""

from __future__ import annotations

import atexit
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

_PACKAGE = Path(__file__).resolve().parents[1]
BUNDLE_ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The folder of ``configs/`` and ``models/``: in a wheel the package itself, else the checkout."""
CONFIGS = BUNDLE_ROOT / "configs"
"""The configurations that come with the bundle."""

TAKEN = {"datalist.json", "metrics.csv", "summary.csv", "quality.html", "run.lock", "finished.json"}
"""Files beside the folders of the pairs, of a run and of an experiment."""
RECORD = "resume.json"
"""File in the folder of a pair: what it was made of, the names of its files, what the page over all pairs shows."""


def holds_results(folder: Path) -> bool:
    """Whether a folder is that of a run or of a finished pair."""
    return any((folder / name).is_file() for name in (*TAKEN, RECORD))


def is_occupied(path: Path) -> bool:
    """Whether there is a file, or a folder with something in it, which a new folder must not replace."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def flush(path: Path) -> None:
    """Make sure that the content of a file, or the names in a folder, are on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity(path: str | os.PathLike[str]) -> Path | tuple[int, int]:
    """What tells whether two paths lead to one file: where it lies or, if it has several names, its number."""
    place = Path(path).resolve()
    found = place.stat()
    return (found.st_dev, found.st_ino) if found.st_nlink > 1 and place.is_file() else place


@contextmanager
def moved_into_place(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give writers that need a name a temporary one beside the file; at the end, flush it and move it into place.

    If the body or the disk fails, an older file stays as it was and nothing is left under the temporary name.

    Args:
        path: final name; missing folders are created.
        previous: new name for an older file; None replaces that file.

    Yields:
        The name to write to, with the same suffix as the final one, but in small letters: ITK knows no others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes)
    partial = path.with_name(f".partial.{path.name.removesuffix(suffix)}{suffix.lower()}")
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
