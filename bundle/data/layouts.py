"""From the layout of a data set on disk to entries with the keys of a MONAI datalist, not yet checked.

An entry is a pair (``fixed_image``, ``moving_image`` ...) or a single image (``image``, ``label`` ...).
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.formats.images import IMAGE_SUFFIXES as SUFFIXES
from bundle.formats.point_files import LANDMARK_FORMATS as POINT_SUFFIXES
from bundle.formats.tables import Table, value_of
from bundle.system.contents import unread_format
from bundle.system.errors import DataWarning
from bundle.system.limits import Refused, exists, read_whole
from bundle.system.text import load_json

SIDES = ("fixed", "moving")
SECTIONS = ("training", "validation", "test")
PAIRINGS = ("paired", "fixed", "moving", "repeat")
KINDS = ("image", "label", "mask", "landmarks")
# Files that belong to an image, and their (DeepReg) folders; pairs put `fixed_` or `moving_` before both.
FOLDERS = {"image": "images", "label": "labels", "mask": "masks", "landmarks": "landmarks"}
FOLDER_NAMES = {*SIDES, *FOLDERS.values(), *(f"{side}_{name}" for side in SIDES for name in FOLDERS.values())}
"""Names of the folders of a data set, in small letters."""
PATIENTS = re.compile(r"patients?\.(?:csv|tsv|txt|xlsx?)", re.IGNORECASE)
# Learn2Reg's names of files that belong to `imagesTr/X.nii.gz`: folder, and suffix if it differs.
LEARN2REG_FOLDERS = {"label": ("labels", None), "mask": ("masks", None), "landmarks": ("keypoints", ".csv")}
LEARN2REG_PAIRS = {
    "training": "training_paired_images",
    "validation": "registration_val",
    "test": "registration_test",
}


def name_unread(folder: Path, found: Iterable[str]) -> None:
    """Warn of images in a folder that are left out because their format is not read.

    Args:
        folder: folder of images.
        found: names of those that are read; files that begin with one belong to it, as ``.raw`` does to ``.mhd``.
    """
    starts = tuple(f"{name}." for name in found)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    others = (path for path in files if not composed(path.name).startswith(starts))
    unread = [(path, what) for path in others if (what := unread_format(path))]
    if unread:
        count = "1 file is" if len(unread) == 1 else f"{len(unread)} files are"
        note = f"{folder}: {count} left out, the first {unread[0][0].name}: {unread[0][1]}"
        warnings.warn(note, DataWarning, stacklevel=4)


def stem(path: str | Path) -> str:
    """File name without a suffix of an image or point file: ``a/case.1.nii.gz -> case.1``, a folder's name as it is."""
    return composed(without_suffix(path))


def composed(name: str) -> str:
    """A name by which others of the same letters are found: ``ü`` is one character or, as macOS may have it, two."""
    return unicodedata.normalize("NFC", name)


def without_suffix(path: str | Path) -> str:
    """As :func:`stem`, in the characters of the file's own name."""
    name = Path(path).name
    suffixes = (suffix for suffix in (*SUFFIXES, *POINT_SUFFIXES) if name.lower().endswith(suffix))
    suffix = max(suffixes, key=len, default="")
    return name[: len(name) - len(suffix)] or name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is an image, not JSON, or not an object.
    """
    if not exists(path):
        raise FileNotFoundError(f"datalist not found: {path}; give a JSON file, as it is or relative to dataset_dir")
    if path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{path} is an image, expected a datalist (JSON); for a pair, the moving image is missing")
    try:
        content = load_json(read_whole(path))
    except Refused as error:
        raise ValueError(f"datalist {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"datalist {path} is not valid JSON ({error}); correct the file") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"datalist {path} holds a {type(content).__name__}, expected an object of lists: "
            '{"training": [...], "validation": [...], "test": [...]}'
        )
    return content


def find_dataset_json(root: Path) -> Path:
    """The only ``*dataset*.json`` of a folder that has no image folders.

    Args:
        root: the folder.

    Returns:
        The file.

    Raises:
        ValueError: when there is none, or more than one.
    """
    found = sorted(root.glob("*dataset*.json"))
    if len(found) == 1:
        return found[0]
    capital = [path.name for path in sorted(root.iterdir()) if path.name != path.name.lower() in FOLDER_NAMES]
    seen = f"; found {', '.join(path.name for path in found)}" if found else ""
    seen += f"; found {', '.join(capital)}, whose names are written in small letters" if capital else ""
    loose = next((path for path in sorted(root.iterdir()) if path.name.lower().endswith(SUFFIXES)), None)
    if root.name in FOLDER_NAMES:
        advice = f"give the folder above, which holds {root.name}/"
    elif loose is not None:
        advice = f"name a datalist, or put {loose.name} and the other images into images/"
    else:
        advice = "name a datalist, or arrange the images in one of these ways"
    raise ValueError(
        f"unknown layout of {root}: looked for fixed_images/ and moving_images/, for images/, for fixed/ and moving/, "
        "for slices such as A_047.png, for folders of these (tasks), and for one *dataset*.json (Learn2Reg)"
        f"{seen}; {advice}"
    )


def read_patients(root: Path, problems: list[str]) -> dict[str, str]:
    """Patients of images, from ``patients.csv`` (header ``image,patient``; image = file name without suffix).

    Args:
        root: folder of the data set.
        problems: list to which problems of the file are added.

    Returns:
        Patient of each image; empty when there is no such file.
    """
    path = root / "patients.csv"
    if not path.is_file():
        folders = [folder for folder in (root, root / "images") if folder.is_dir()]
        if other := next((one for folder in folders for one in folder.iterdir() if PATIENTS.fullmatch(one.name)), None):
            note = f"{other} is not read: patients are those of {path.name} in {root}, header image,patient; rename it"
            warnings.warn(note, DataWarning, stacklevel=2)
        return {}
    try:
        table = Table.read(read_whole(path))
    except ValueError as error:
        problems.append(f"patients.csv is not a table with the header image,patient ({error})")
        return {}
    header = table.header([{"image", "patient"}])
    filled = [number for number in table.filled() if number > header.row]
    if not filled:
        problems.append("patients.csv names no image; fill it in, or remove it if every image is another patient's")
        return {}
    patients: dict[str, str] = {}
    for number in filled:
        row = dict(zip(header.names, map(value_of, table.rows[number][0]), strict=False))
        line, image, patient = number + 1, stem(row.get("image", "")), row.get("patient", "")
        if not image or not patient:
            problems.append(f"patients.csv line {line}: expected an image and a patient under the header image,patient")
        elif patients.setdefault(image, patient) != patient:
            problems.append(f"patients.csv line {line}: image {image} has patient {patient} and {patients[image]}")
    return patients


def is_learn2reg(content: Mapping[str, Any]) -> bool:
    """Whether a dataset JSON is one of Learn2Reg's."""
    return any(key in content for key in LEARN2REG_PAIRS.values())


def learn2reg_sections(content: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Entries of a Learn2Reg dataset JSON (https://learn2reg.grand-challenge.org).

    Labels, masks and keypoints are found by the naming convention (``imagesTr/X`` -> ``labelsTr/X``,
    ``masksTr/X``, ``keypointsTr/X.csv``). The challenge also lists validation images among the training images; images
    that share a patient with validation or test are left out of training.

    Args:
        content: the JSON.
        root: folder its paths are relative to.

    Returns:
        Entries of each section, not yet checked.

    Raises:
        ValueError: when one of the lists is something else.
    """
    sections = {
        section: [_learn2reg_pair(pair, root) for pair in _list(content, key)]
        for section, key in LEARN2REG_PAIRS.items()
    }
    if not sections["training"]:
        sections["training"] = [_learn2reg_single(image, root) for image in _list(content, "training")]
    held_out = {
        patient for section in ("validation", "test") for entry in sections[section] for patient in _patients(entry)
    }
    sections["training"] = [entry for entry in sections["training"] if held_out.isdisjoint(_patients(entry))]
    return sections


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    found = content.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{key} of the Learn2Reg data set is a {type(found).__name__}, expected a list")
    return found


def _patients(entry: Any) -> list[str]:
    found = entry.get("patient") or [] if isinstance(entry, dict) else []
    return [str(patient) for patient in found] if isinstance(found, list) else [str(found)]


def _learn2reg_pair(pair: Any, root: Path) -> Any:
    """``{"fixed", "moving"}`` -> entry of a pair; anything else as it is, for the checks to report."""
    if not isinstance(pair, dict) or not all(isinstance(pair.get(side), str) for side in SIDES):
        return pair
    entry: dict[str, Any] = {f"{side}_image": pair[side] for side in SIDES}
    for side in SIDES:
        entry |= {f"{side}_{kind}": path for kind, path in _companions(pair[side], root).items()}
    return _with_patients(entry, pair["moving"], pair["fixed"])


def _learn2reg_single(image: Any, root: Path) -> Any:
    """``{"image", ...}`` -> entry of a single image; anything else as it is, for the checks to report."""
    if not isinstance(image, dict) or not isinstance(image.get("image"), str):
        return image
    given = {"landmarks" if kind == "keypoints" else kind: path for kind, path in image.items()}
    return _with_patients(_companions(image["image"], root) | given, image["image"])


def _companions(image: str, root: Path) -> dict[str, str]:
    """Label, mask and keypoints that exist for ``imagesTr/X`` or ``imagesTs/X``."""
    folder = Path(image).parent
    found = {}
    for kind, (name, suffix) in LEARN2REG_FOLDERS.items():
        file_name = without_suffix(image) + suffix if suffix else Path(image).name
        path = folder.with_name(folder.name.replace("images", name, 1)) / file_name
        if folder.name.startswith("images") and (root / path).is_file():
            found[kind] = str(path)
    return found


def _with_patients(entry: dict[str, Any], *images: str) -> dict[str, Any]:
    """Add the subject numbers of ``NAME_0001_0000.nii.gz`` (name, subject, image of the subject)."""
    numbers = [re.fullmatch(r".+_(\d+)_\d+", stem(image)) for image in images]
    if all(numbers):
        entry["patient"] = list(dict.fromkeys(number.group(1) for number in numbers if number))
    return entry
