"""From folders of images or numbered slices to entries: pairs, or single images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.layouts import FOLDERS, KINDS, POINT_SUFFIXES, SIDES, SUFFIXES, composed, name_unread, stem
from bundle.formats.images import PICTURE_SUFFIXES, read_image
from bundle.formats.nibabel_files import belongs_to_header
from bundle.formats.problems import dimensions
from bundle.system import DataWarning, holds_results
from bundle.system.limits import elsewhere

# Folder of the images of a side: DeepReg's name, and the short one. What belongs to them keeps DeepReg's names.
SPELLINGS = ("{side}_images", "{side}")
LANDMARKS = "landmarks"
ENDING = re.compile(r"(.+?)[_.-](?:seg|segmentation|label|labels|mask|landmarks|points)", re.IGNORECASE)
"""Name of a file that belongs to an image, with an ending that other programs give it."""
COMPANION = re.compile(r"(?:(?:fixed|moving)_?)?(?:label|mask|seg|segmentation|landmark|point)s?", re.IGNORECASE)
SLICE = re.compile(r"(.+)_(\d+)")
SLICES_ALONE = " beside slices; name the images and what belongs to them in a datalist"
SLICE_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".dcm")  # part of a series, which is a folder


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
        problems: list to which problems are added.

    Returns:
        Pairs, or single images, in the order of their names.

    Raises:
        ValueError: when two layouts are there, or a folder that the pairing needs is not.
    """
    folders = _image_folders(root, pairing)
    _name_unused(root, ("",) if "" in folders else ("fixed_", "moving_"))
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
            problems.append(f"pair {name}: {lacking}; give both images one name, or list the pairs in a datalist")
            continue
        entry: dict[str, Any] = {
            f"{side}_{kind}" if paired else kind: path for side in folders for kind, path in found[side][name].items()
        }
        entry |= {LANDMARKS: points[name]} if name in points else {}
        entries.append(entry | {"patient": patients.get(name, name)})
    return entries


def _folders_of(root: Path, spelling: str) -> list[Path]:
    """Existing image folders of the two sides under these names."""
    return [folder for side in SIDES if (folder := root / spelling.format(side=side)).is_dir()]


def _image_folders(root: Path, pairing: str) -> dict[str, Path]:
    """Folder of the images of each side that the pairing needs; the side is ``""`` if there are no sides."""
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


def _name_unused(root: Path, prefixes: Sequence[str] = ()) -> None:
    """Name the folders that look as if they belong to the images, but have names that are not looked for."""
    known = [prefix + FOLDERS[kind] for prefix in prefixes for kind in KINDS[1:]]
    layout = f", its name is none of those of this layout: {'/, '.join(known)}/" if known else SLICES_ALONE
    for folder in sorted(root.iterdir()):
        if COMPANION.fullmatch(folder.name) and folder.is_dir() and folder.name not in (known and [*known, LANDMARKS]):
            warnings.warn(f"{root}: {folder.name}/ is not used{layout}", DataWarning, stacklevel=3)


def _images(images: Path, prefix: str, problems: list[str]) -> dict[str, dict[str, str]]:
    """Images of one side by name, each with its label, mask and landmarks, matched by name."""
    files = _files(images, SUFFIXES, problems)
    name_unread(images, files)
    others = {name: path for name, path in files.items() if _image_of(name) in files}
    for name, path in others.items():
        image = _image_of(name)
        place = f"{prefix}labels/{image}{path.name[len(name) :]}"
        problems.append(f"{images.name}/{path.name} looks like the label of {image}; move it to {place}")
    found = {name: {"image": str(path)} for name, path in files.items() if name not in others}
    for kind in KINDS[1:]:
        suffixes = POINT_SUFFIXES if kind == LANDMARKS else SUFFIXES
        for name, file in _matched(images.with_name(f"{prefix}{FOLDERS[kind]}"), suffixes, found, problems).items():
            found[name][kind] = file
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
    return _matched(root / LANDMARKS, (".csv", ".tsv"), names, problems)


def _matched(folder: Path, suffixes: tuple[str, ...], names: Iterable[str], problems: list[str]) -> dict[str, str]:
    """Files of a folder by the names of the images they belong to; none when there is no such folder."""
    if not folder.is_dir():
        return {}
    files = _files(folder, suffixes, problems)
    endings = {_image_of(name): (name, path) for name, path in files.items()}
    for image in names:
        if image not in files:
            todo = "add it, or list pairs in a datalist"
            if image in endings:
                name, path = endings[image]
                todo = f"found {path.name}, rename it to {image}{path.name[len(name) :]}"
            problems.append(f"{folder.name}/ has no file for the image {image}; {todo}")
    return {name: str(files[name]) for name in names if name in files}


def _image_of(name: str) -> str | None:
    """The image that a file belongs to by its ending, as ``X`` for ``X_seg``."""
    match = ENDING.fullmatch(name)
    return match and match[1]


def _files(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    """Data files and sub-folders (each a DICOM series) of a folder, by name; other files and results are left out."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        named = path.name.lower().endswith(suffixes) and not (path.name.startswith(".") or belongs_to_header(path))
        if (lost := elsewhere(path, suffixes)) and not named:
            problems.append(f"{folder.name}/{path.name} is {lost}")
        if not named and (path.name.startswith(".") or not path.is_dir()):
            continue
        if path.is_dir() and holds_results(path):
            warnings.warn(f"{path} holds results, which are no data, and is left out", DataWarning, stacklevel=3)
            continue
        name = composed(path.name) if path.is_dir() else stem(path)
        if files.setdefault(name, path) != path:
            problems.append(f"{folder.name}/ has {files[name].name} and {path.name}; expected one file per name")
    return files


def has_slices(root: Path) -> bool:
    """Whether a slice lies directly in a folder; volumes numbered the same way (``case_001.nii.gz``) do not count."""
    first = next((path for path in _slice_files(root) if SLICE.fullmatch(stem(path))), None)
    return first is not None and (first.suffix.lower() in PICTURE_SUFFIXES or _is_slice(first))


def _is_slice(path: Path) -> bool:
    try:
        return dimensions(read_image(path).channels.shape[1:]) == 2
    except Exception:  # every reader fails in its own way; unreadable files say nothing about the layout
        return False


def slice_entries(root: Path, pairing: str, patients: Mapping[str, str], problems: list[str]) -> list[dict[str, Any]]:
    """Entries of a folder of slices, every one with its patient: the volume, unless ``patients.csv`` names another.

    "Adjacent two slices were defined as a (M, F) pair" (Park et al. 2021, section 3): the moving image is slice n of
    a volume, the fixed image slice n + 1.

    Args:
        root: folder with files such as ``A_047.png``.
        pairing: ``paired`` for pairs of neighbours; anything else gives the slices as single images.
        patients: patient of each slice by file name, or of each volume by its name; when empty, each volume is one.
        problems: list to which problems are added.

    Returns:
        Pairs, or single images, in the order of volumes and numbers.

    Raises:
        ValueError: when no volume has two neighbouring slices to pair.
    """
    _name_unused(root)
    entries = []
    for volume, slices in _volumes(root, problems).items():
        patient = {"patient": _patient(volume, slices.values(), patients, problems)}
        for number, path in sorted(slices.items()):
            if pairing != "paired":
                entries.append({"image": str(path)} | patient)
            elif number + 1 in slices:
                entries.append({"moving_image": str(path), "fixed_image": str(slices[number + 1])} | patient)
    if not entries:
        raise ValueError(f"no two slices of {root} are neighbours; expected numbers that follow, as A_047 and A_048")
    return entries


def _slice_files(root: Path) -> list[Path]:
    """Image files directly in a folder."""
    files = (path for path in root.iterdir() if path.name.lower().endswith(SLICE_SUFFIXES) and path.is_file())
    return sorted(path for path in files if not (path.name.startswith(".") or belongs_to_header(path)))


def _volumes(root: Path, problems: list[str]) -> dict[str, dict[int, Path]]:
    """Slices of each volume by their number."""
    volumes: dict[str, dict[int, Path]] = {}
    others = []
    for path in _slice_files(root):
        match = SLICE.fullmatch(stem(path))
        if not match:
            others.append(path.name)
            continue
        slices, number = volumes.setdefault(match[1], {}), int(match[2])
        if slices.setdefault(number, path) != path:
            problems.append(
                f"{slices[number].name} and {path.name} are both slice {number} of {match[1]}; expected one file"
            )
    if others:
        problems.append(
            f"{len(others)} image file(s) not named <volume>_<number>, the first is {others[0]}; rename or move them"
        )
    return dict(sorted(volumes.items()))


def _patient(volume: str, slices: Iterable[Path], patients: Mapping[str, str], problems: list[str]) -> str:
    """The patient of a volume."""
    if not patients:
        return volume
    stated = [patients.get(stem(path)) or patients.get(volume) for path in slices]
    if None in stated:
        problems.append(f"patients.csv has no line for the volume {volume}, or for each of its slices; add its patient")
    named = sorted({patient for patient in stated if patient})
    if len(named) > 1:
        problems.append(f"patients.csv gives the volume {volume} the patients {', '.join(named)}; expected one")
    return named[0] if named else volume
