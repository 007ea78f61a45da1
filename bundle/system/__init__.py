"""The machine: files and folders, locks, limits, errors, processes, the console."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bundle.system.errors import WRAPPING, DataWarning, brief, one_line, root_cause
from bundle.system.files import flush, moved_into_place, written_whole
from bundle.system.limits import exists, regular_file
from bundle.system.lock import FolderLock

if TYPE_CHECKING:
    from bundle.system.fingerprints import fingerprint
    from bundle.system.session import Session

__all__ = [
    "DataWarning",
    "FolderLock",
    "Session",
    "WRAPPING",
    "brief",
    "exists",
    "fingerprint",
    "flush",
    "moved_into_place",
    "one_line",
    "regular_file",
    "root_cause",
    "written_whole",
]

LATER = {"Session": "bundle.system.session", "fingerprint": "bundle.system.fingerprints"}
"""What needs torch or MONAI, which take seconds, and the files it is in."""


def __getattr__(name: str) -> Any:
    """What needs torch, or a file of this room, when it is first asked for."""
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    if name in ("console", "processes"):  # of which configurations speak
        return import_module(f"bundle.system.{name}")
    raise AttributeError(f"module 'bundle.system' has no attribute {name!r}")
