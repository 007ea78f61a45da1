"""The machine: files and folders, locks, limits, errors, processes, the console."""

from bundle.system.errors import WRAPPING, DataWarning, brief, one_line, root_cause
from bundle.system.files import CONFIGS, moved_into_place, remove_leftovers, whole_folder, written_whole
from bundle.system.fingerprint import fingerprint
from bundle.system.limits import exists, regular_file
from bundle.system.lock import FolderLock
from bundle.system.session import Session, start_worker

__all__ = [
    "CONFIGS",
    "DataWarning",
    "FolderLock",
    "Session",
    "WRAPPING",
    "brief",
    "exists",
    "fingerprint",
    "moved_into_place",
    "one_line",
    "regular_file",
    "remove_leftovers",
    "root_cause",
    "start_worker",
    "whole_folder",
    "written_whole",
]
