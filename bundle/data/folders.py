"""Folders of images, in DeepReg's names or the short ones -> entries: pairs of two sides, or single images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.data.layouts import FOLDERS, KINDS, POINT_SUFFIXES, SUFFIXES, stem

SIDES = ("fixed", "moving")
# Folder of the images of a side: DeepReg's name, and the short one. What belongs to them keeps DeepReg's names.
SPELLINGS = ("{side}_images", "{side}")
LANDMARKS = "landmarks"


def has_folders(root: Path) -> bool:
    """Whether a folder has folders of images."""
    return (root / "images").is_dir() or any(_folders_of(root, spelling) for spelling in SPELLINGS)


def image_entries(root: Path, pairing: str, patients: Mapping[str, str], problems: list[str]) -> list[dict[str, Any]]:
    """Entries of folders of images, every one with its patient.

    Args:
        root: folder with ``fixed_images/`` and ``moving_images/`` (or ``fixed/`` and ``moving/``), or with ``images/``.
        pairing: for the first, ``paired`` (moving -> fixed of the same name, with the ``landmarks/`` of the pair), or
            only the ``fixed`` or ``moving`` images, as single ones; ``repeat`` takes the fixed ones.
        patients: patient of each image by file name; when empty, each name is a patient.
        problems: takes up what is wrong.

    Returns:
        Pairs, or single images, in the order of their names.

    Raises:
        ValueError: when two layouts are there, or a folder that the pairing needs is not.
    """
    folders = _image_folders(root, pairing)
    paired = len(folders) == 2
    found = {side: _images(folder, f"{side}_" if side else "", problems) for side, folder in folders.items()}
    names = sorted(set().union(*found.values()))
    if not names:
        searched = " and ".join(f"{folder.name}/" for folder in folders.values())
        raise ValueError(f"no image in {searched} of {root}; expected folders of DICOM slices or {' '.join(SUFFIXES)}")
    points = _landmarks(root, names, problems) if paired else {}
    entries = []
    for name in names:
        if patients and name not in patients:
            problems.append(f"patients.csv has no line for the image {name}; add its patient")
        without = [side for side in folders if name not in found[side]]
        if without:
            lacking = f"no {without[0]} image {folders[without[0]].name}/{name}"
            problems.append(f"pair {name}: {lacking}; expected the same names")
            continue
        entry: dict[str, Any] = {
            f"{side}_{kind}" if paired else kind: path for side in folders for kind, path in found[side][name].items()
        }
        entry |= {LANDMARKS: points[name]} if name in points else {}
        entries.append(entry | {"patient": patients.get(name, name)})
    return entries


def _folders_of(root: Path, spelling: str) -> list[Path]:
    """Image folders of the two sides that are there under these names."""
    return [folder for side in SIDES if (folder := root / spelling.format(side=side)).is_dir()]


def _image_folders(root: Path, pairing: str) -> dict[str, Path]:
    """Folder of the images of each side that the pairing needs; of the side ``""`` where there are no sides."""
    spellings = [spelling for spelling in SPELLINGS if _folders_of(root, spelling)]
    if len(spellings) > 1:
        found = " and ".join(f"{_folders_of(root, spelling)[0].name}/" for spelling in spellings)
        raise ValueError(f"{root} has {found}; keep fixed_images/ and moving_images/, or fixed/ and moving/")
    if (root / "images").is_dir():
        if spellings:
            found = f"images/ and {' or '.join(f'{spellings[0].format(side=side)}/' for side in SIDES)}"
            raise ValueError(f"{root} has {found}; keep one layout, or name a datalist")
        return {"": root / "images"}
    needed = {"paired": SIDES, "repeat": ("fixed",)}.get(pairing, (pairing,))
    folders = {side: root / spellings[0].format(side=side) for side in needed}
    for folder in folders.values():
        if not folder.is_dir():
            raise ValueError(f"{root} has no {folder.name}/, which the pairing {pairing!r} needs")
    return folders


def _images(images: Path, prefix: str, problems: list[str]) -> dict[str, dict[str, str]]:
    """Images of one side by name, each with its label, mask and landmarks, matched by name."""
    found = {name: {"image": str(path)} for name, path in _files(images, SUFFIXES, problems).items()}
    for kind in KINDS[1:]:
        suffixes = POINT_SUFFIXES if kind == LANDMARKS else SUFFIXES
        folder = images.with_name(f"{prefix}{FOLDERS[kind]}")
        for name, path in _matched(folder, suffixes, found, problems).items():
            found[name][kind] = path
    return found


def _landmarks(root: Path, names: Iterable[str], problems: list[str]) -> dict[str, str]:
    """Files of ``landmarks/``, one for each pair."""
    others = [f"{side}_{LANDMARKS}/" for side in SIDES if (root / f"{side}_{LANDMARKS}").is_dir()]
    if others and (root / LANDMARKS).is_dir():
        problems.append(
            f"{root} has {LANDMARKS}/ and {' and '.join(others)}; keep {LANDMARKS}/ for one file per pair, or "
            f"fixed_{LANDMARKS}/ and moving_{LANDMARKS}/ for one per image"
        )
        return {}
    return _matched(root / LANDMARKS, (".csv",), names, problems)


def _matched(folder: Path, suffixes: tuple[str, ...], names: Iterable[str], problems: list[str]) -> dict[str, str]:
    """Files of a folder by the names of the images they belong to; none when there is no such folder."""
    if not folder.is_dir():
        return {}
    files = _files(folder, suffixes, problems)
    problems += [
        f"{folder.name}/ has no file for the image {name}; add it, or list pairs in a datalist"
        for name in names
        if name not in files
    ]
    return {name: str(files[name]) for name in names if name in files}


def _files(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    """Data files of a folder, and its sub-folders (a DICOM series each), by name; other files are left out."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.name.lower().endswith(suffixes)):
            continue
        name = path.name if path.is_dir() else stem(path)
        if files.setdefault(name, path) != path:
            problems.append(f"{folder.name}/ has {files[name].name} and {path.name}; expected one file per name")
    return files
