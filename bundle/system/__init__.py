"""The machine: files and folders, locks, limits, errors, processes, the console."""

from bundle.system.errors import WRAPPING, DataWarning, brief, one_line, root_cause
from bundle.system.files import moved_into_place, remove_leftovers, whole_folder, written_whole
from bundle.system.fingerprint import (
    changes,
    described,
    fingerprint,
    fingerprint_of_list,
    hash_of_files,
    hash_of_transforms,
    sources,
)
from bundle.system.limits import exists, regular_file
from bundle.system.lock import FolderLock
from bundle.system.session import Session

__all__ = [
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
    "whole_folder",
    "written_whole",
]
