"""The machine: files and folders, locks, limits, errors, processes, the console."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bundle.system.errors import WRAPPING, DataWarning, brief, one_line, root_cause
from bundle.system.files import BUNDLE_ROOT, CONFIGS, moved_into_place, remove_leftovers, whole_folder, written_whole
from bundle.system.limits import exists, regular_file
from bundle.system.lock import FolderLock

if TYPE_CHECKING:
    from bundle.system.fingerprints import (
        changes,
        described,
        fingerprint,
        fingerprint_of_list,
        hash_of_files,
        hash_of_transforms,
        sources,
    )
    from bundle.system.session import Session, start_worker

__all__ = [
    "BUNDLE_ROOT",
    "CONFIGS",
    "DataWarning",
    "FolderLock",
    "Session",
    "WRAPPING",
    "brief",
    "changes",
    "described",
    "exists",
    "fingerprint",
    "fingerprint_of_list",
    "hash_of_files",
    "hash_of_transforms",
    "moved_into_place",
    "one_line",
    "regular_file",
    "remove_leftovers",
    "root_cause",
    "sources",
    "start_worker",
    "whole_folder",
    "written_whole",
]

LATER = {
    "Session": "bundle.system.session",
    "start_worker": "bundle.system.session",
    "changes": "bundle.system.fingerprints",
    "described": "bundle.system.fingerprints",
    "fingerprint": "bundle.system.fingerprints",
    "fingerprint_of_list": "bundle.system.fingerprints",
    "hash_of_files": "bundle.system.fingerprints",
    "hash_of_transforms": "bundle.system.fingerprints",
    "sources": "bundle.system.fingerprints",
}
"""Names whose modules need torch or MONAI, which take seconds to import, and the files that define them."""


def __getattr__(name: str) -> Any:
    """Import a name that needs torch, or a file of this room, when it is first used."""
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    if name in ("console", "processes"):  # of which configurations speak
        return import_module(f"bundle.system.{name}")
    raise AttributeError(f"module 'bundle.system' has no attribute {name!r}")
