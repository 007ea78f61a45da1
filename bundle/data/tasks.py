"""Tasks are named sources of pairs: from a folder of task folders to entries that name their task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundle.data.folders import has_folders, has_slices, image_entries, slice_entries
from bundle.data.layouts import FOLDER_NAMES, read_patients

# (root, pairing, patients, problems) -> entries
Reader = Callable[[Path, str, Mapping[str, str], list[str]], list[dict[str, Any]]]


def folder_reader(root: Path) -> Reader | None:
    """The function that reads the entries of a folder.

    Args:
        root: folder of a data set.

    Returns:
        The reader of its layout; None if files in it, such as a dataset JSON, have to say what there is.
    """
    if any(root.glob("*dataset*.json")) and not has_folders(root):
        return None
    return _layout(root) or (task_entries if _has_tasks(root) else None)


def task_entries(root: Path, pairing: str, patients: Mapping[str, str], problems: list[str]) -> list[dict[str, Any]]:
    """Entries of a folder of task folders; ``task`` is the name of an entry's folder.

    Args:
        root: folder whose sub-folders are data sets, each in one of the layouts of folders.
        pairing: as for that layout.
        patients: patient of each image by file name, for the tasks without a ``patients.csv`` of their own. The same
            patient in two tasks is one patient.
        problems: list to which problems are added.

    Returns:
        Entries, in the order of the tasks' names.
    """
    entries = []
    for folder in _subfolders(root):
        reader, found = _layout(folder), list[str]()
        if reader is None:
            problems.append(
                f"{folder.name}/ is no task: expected images/, fixed/ and moving/, or slices such as A_047.png in it; "
                "arrange them so, or move the folder away"
            )
            continue
        try:
            listed = reader(folder, pairing, read_patients(folder, found) or patients, found)
            entries += [entry | {"task": folder.name} for entry in listed]
        except ValueError as error:
            found.append(str(error))
        problems += [f"{folder.name}: {problem}" for problem in found]
    return entries


def _layout(root: Path) -> Reader | None:
    """Reader of a folder that is one data set."""
    if has_folders(root):
        return image_entries
    return slice_entries if has_slices(root) else None


def _has_tasks(root: Path) -> bool:
    """Whether a sub-folder is a data set. A folder such as ``labels/`` means that its images are missing instead."""
    folders = _subfolders(root)
    return any(map(_layout, folders)) and FOLDER_NAMES.isdisjoint(folder.name for folder in folders)


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
