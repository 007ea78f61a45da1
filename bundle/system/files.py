"""Files and folders that are there as a whole or not at all."""

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
"""The folder of ``configs/`` and ``models/``: of a wheel the package itself, else the checkout."""
CONFIGS = BUNDLE_ROOT / "configs"
"""The configurations that come with the bundle."""


def flush(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def moved_into_place(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """A temporary name beside a file's place, for writers that want a name; moved there at the end, flushed to disk.

    When the body or the disk fails, an older file stays as it was and nothing is left under the temporary name.

    Args:
        path: final name; missing folders are created.
        previous: name that an older file gets; None replaces it.

    Yields:
        The name to write to, with the suffix of the final one.
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
    # A file system that cannot flush names has them in order nevertheless.
    with suppress(OSError):
        flush(path.parent)


@contextmanager
def written_whole(path: Path, mode: str = "w", previous: Path | None = None) -> Iterator[IO[Any]]:
    """Open a file under a temporary name, and move it into its place at the end: ``moved_into_place``.

    Args:
        path: final name; missing folders are created.
        mode: ``"w"`` for text in UTF-8 (lines end as written; bytes of a file's name that are not are escaped),
            ``"wb"`` for bytes.
        previous: name that an older file gets; None replaces it.

    Yields:
        The open file.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with moved_into_place(path, previous) as partial, partial.open(mode, **text) as file:
        yield file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside a folder's place; moved there at the end, flushed to disk, in place of an older one.

    When the body or the disk fails, an older folder stays as it was and nothing is left under the temporary name. A
    process that is killed may leave something there, which the next one that writes this folder removes. At a time,
    one process writes a folder.

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
        # Deleted under its own name, a folder would for a moment be there in part.
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed may have left of ``whole_folder``."""
    for folder in _temporary_folders(path):
        shutil.rmtree(folder, ignore_errors=True)


def _temporary_folders(path: Path) -> tuple[Path, Path]:
    """Where the new content of a folder grows, and where the old one is deleted."""
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")


@cache
def silent_exit() -> None:
    """Drop what libraries in C print when the process ends: HDF5, about what it could not close of a damaged file."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Drop what libraries in C print to the standard error.

    That is one for all threads of a process, so it is left alone in those that a server starts.
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
