"""The machine: files and folders, locks, limits, errors, processes, the console."""

from typing import TYPE_CHECKING

from bundle.system.errors import DataWarning, brief, one_line, root_cause, unwrapped
from bundle.system.files import (
    BUNDLE_ROOT,
    CONFIGS,
    holds_results,
    moved_into_place,
    remove_leftovers,
    whole_folder,
    written_whole,
)
from bundle.system.limits import exists, regular_file, spelt_otherwise
from bundle.system.on_demand import on_demand

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
    from bundle.system.session import FolderLock, Session, start_worker
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "BUNDLE_ROOT",
    "CONFIGS",
    "DataWarning",
    "FolderLock",
    "Session",
    "brief",
    "changes",
    "described",
    "exists",
    "fingerprint",
    "fingerprint_of_list",
    "hash_of_files",
    "hash_of_transforms",
    "holds_results",
    "moved_into_place",
    "one_line",
    "regular_file",
    "remove_leftovers",
    "root_cause",
    "sources",
    "spelt_otherwise",
    "start_worker",
    "unwrapped",
    "whole_folder",
    "written_whole",
]
