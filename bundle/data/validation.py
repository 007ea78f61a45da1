"""Check the keys, files, patients and names of datalist entries."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.data.layouts import KINDS, POINT_SUFFIXES, SECTIONS, SIDES, stem
from bundle.data.structures import PARTS, clean_structures
from bundle.system.files import TAKEN
from bundle.system.limits import exists, first_paths, is_same_file, spelt_otherwise

Pair = dict[str, Any]
Sections = dict[str, list[Pair]]

PAIR_PATHS = (*(f"{side}_{kind}" for kind in KINDS for side in SIDES), "landmarks")
PAIR_NAMES = ("pair_id", "patient", "task", "fixed_structures", "moving_structures")
LONGEST_ID = 200  # file names have 255 bytes, and a folder is first written under a longer name
PAIR_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_ID - 1}}}")
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})


def clean_section(section: str, raw: Any, root: Path, problems: list[str]) -> list[Pair]:
    """Entries of a section with absolute paths and patients as tuples.

    Args:
        section: name of the section, for messages.
        raw: entries as they were read: pairs, single images, or paths of single images.
        root: folder that relative paths start at.
        problems: list to which problems are added, one line each.

    Returns:
        The entries that have an image to go on with.
    """
    if not isinstance(raw, list):
        problems.append(f"{section} is a {type(raw).__name__}, expected a list of entries")
        return []
    cleaned = (_clean(entry, f"{section}[{number}]", root, problems) for number, entry in enumerate(raw))
    return [entry for entry in cleaned if entry is not None]


def _clean(raw: Any, where: str, root: Path, problems: list[str]) -> Pair | None:
    """One entry, or None when it has no image to go on with."""
    raw = {"image": raw} if isinstance(raw, str) else raw
    if not isinstance(raw, dict):
        problems.append(f'{where} is a {type(raw).__name__}, expected an object such as {{"fixed_image": ...}}')
        return None
    single = "image" in raw
    paths = KINDS if single else PAIR_PATHS
    names = ("patient", "task", "structures") if single else PAIR_NAMES
    given = {key: value for key, value in raw.items() if value is not None}
    for key in given:
        if key not in paths + names:
            problems.append(f"{where}: unknown key {key!r}, known are {', '.join(paths + names)}")
    absent = [key for key in (["image"] if single else ["moving_image", "fixed_image"]) if key not in given]
    wrong = [key for key in paths if key in given and not (isinstance(given[key], str) and given[key])]
    problems += [f"{where}: {key} is {given[key]!r}, expected the path of one file" for key in wrong]
    problems += [
        f"{where}: {key} is {given[key]!r}, expected a file of points ({', '.join(POINT_SUFFIXES)})"
        for key in paths
        if key.endswith("landmarks") and key in given and key not in wrong and not _is_points(given[key])
    ]
    if absent:
        needs = "a pair needs moving_image and fixed_image, a single image the key image"
        problems.append(f"{where}: no {' and no '.join(absent)}; {needs}")
    if not single and "landmarks" in given and not given.keys().isdisjoint({"fixed_landmarks", "moving_landmarks"}):
        choice = "keep landmarks (one file of the pair), or fixed_landmarks and moving_landmarks (one per image)"
        problems.append(f"{where}: landmarks of the pair and of its images; {choice}")
    for key in (key for key in paths if key.endswith(("label", "mask")) and key in given and key not in wrong):
        image = f"{key.rpartition('_')[0]}_image".removeprefix("_")
        if image in given and image not in wrong and is_same_file(root / given[key], root / given[image]):
            problems.append(f"{where}: {key} is the file of {image}; name another, or leave it out")
    if absent or wrong:
        return None
    return {key: str(root / given[key]) for key in paths if key in given} | _clean_names(given, names, where, problems)


def _is_points(path: str) -> bool:
    return path.lower().endswith(POINT_SUFFIXES)


def _clean_names(given: Pair, names: tuple[str, ...], where: str, problems: list[str]) -> Pair:
    """The entry's ``pair_id``, ``patient``, ``task`` and structures, as far as they are given and right."""
    cleaned: Pair = {}
    for key, label, _ in PARTS:
        if key in given and key in names:
            cleaned[key] = clean_structures(given[key], f"{where}: {key}", problems)
            if label not in given:
                problems.append(f"{where}: {key} without a {label}, whose channels they name; give both or none")
    if "pair_id" in given and "pair_id" in names:
        name = given["pair_id"]
        if not isinstance(name, str) or not PAIR_ID.fullmatch(name):
            rule = "expected a letter or digit, then letters, digits and . _ - (it names the pair's output folder)"
            problems.append(f"{where}: pair_id is {_shown(name)}, {rule}, {LONGEST_ID} at most")
        elif name.lower() in TAKEN:
            problems.append(f"{where}: pair_id is {name!r}, which the results use themselves; give another")
        else:
            cleaned["pair_id"] = name
    if "task" in given:
        if isinstance(given["task"], str) and given["task"]:
            cleaned["task"] = given["task"]
        else:
            problems.append(f"{where}: task is {given['task']!r}, expected a name")
    if "patient" in given:
        value = given["patient"]
        patients = value if isinstance(value, list) else [value]
        single = "pair_id" not in names
        named = patients and all(type(patient) in (str, int) and str(patient).strip() for patient in patients)
        if not named or len(patients) > (1 if single else 2):
            who = "one patient" if single else "a patient or a list of patients (moving, fixed)"
            expected = f"{who}, by name or whole number"
            problems.append(f"{where}: patient is {value!r}, expected {expected}")
        else:
            cleaned["patient"] = tuple(dict.fromkeys(str(patient).strip() for patient in patients))
    return cleaned


def missing_files(sections: Sections) -> list[str]:
    """Files that do not exist, each named once.

    Args:
        sections: cleaned entries of each section.

    Returns:
        Problems, one line each.
    """
    first: dict[str, str] = {}
    for section, entries in sections.items():
        for entry in entries:
            for key in (*KINDS, *PAIR_PATHS):
                if key in entry:
                    first.setdefault(entry[key], f"{section}: {key} not found: {entry[key]}")
    return [f"{problem}{spelt_otherwise(path)}" for path, problem in first.items() if not exists(path)]


def complete_patients(sections: Sections, patients: Mapping[str, str], root: Path) -> None:
    """Give every entry its patients: stated, else from ``patients.csv``, else each image is a patient of its own.

    Such a patient is named after the image's file name, or after its path in the data set if other images have the
    same file name (``sub-01/t1``). One file is one patient, however its paths are written and through links.

    Args:
        sections: cleaned entries of each section, changed in place.
        patients: patient of each image by file name, as in ``patients.csv``.
        root: folder of the data set.
    """
    unknown = [entry for entries in sections.values() for entry in entries if "patient" not in entry]
    first = first_paths(path for entry in unknown for path in image_paths(entry))
    shared = Counter(map(stem, set(first.values())))
    for entry in unknown:
        names = [
            patients.get(stem(path)) or (stem(own) if shared[stem(own)] == 1 else _path_name(own, root))
            for path in image_paths(entry)
            for own in (first[path],)
        ]
        entry["patient"] = tuple(dict.fromkeys(names))


def image_paths(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Files of the images of an entry: of a single one, or of the moving and the fixed one."""
    return tuple(entry[key] for key in ("image", "moving_image", "fixed_image") if key in entry)


def _path_name(path: str, root: Path) -> str:
    """Path in the data set without the file's suffix."""
    full = Path(path)
    return (full.relative_to(root) if full.is_relative_to(root) else full).with_name(stem(full)).as_posix()


def leaks(sections: Sections) -> list[str]:
    """Patients that are in more than one section.

    Args:
        sections: entries of each section, with their patients.

    Returns:
        Problems, one line each.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for section, entries in sections.items():
        for entry in entries:
            for patient in entry["patient"]:
                found[patient][section] = None
    return [
        f"patient {patient} is in {' and in '.join(places)}; move all images of a patient to one section (an image "
        "that is meant to be shared, such as an atlas, gets another patient in each: atlas of training, atlas of test)"
        for patient, places in found.items()
        if len(places) > 1
    ]


def identify(sections: Sections, root: Path) -> list[str]:
    """Give every pair a unique ``pair_id``: ``<moving>_to_<fixed>`` from the file names, or from the paths if needed.

    Args:
        sections: pairs of each section, changed in place.
        root: folder of the data set.

    Returns:
        Problems, one line each: a ``pair_id`` given to two pairs, a pair listed twice.
    """
    pairs = [pair for section in SECTIONS for pair in sections[section]]
    unnamed = [pair for pair in pairs if "pair_id" not in pair]
    for pair in unnamed:
        pair["pair_id"] = _pair_id(map(stem, image_paths(pair)))
    # Paths may be one after characters are replaced, and names that differ in case are one folder on many disks.
    for checked in (False, True):
        images: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for pair in pairs:
            images[pair["pair_id"].lower()].add(image_paths(pair))
        for pair in unnamed:
            if len(images[pair["pair_id"].lower()]) > 1:
                pair["pair_id"] = _pair_id((_path_name(path, root) for path in image_paths(pair)), checked)
    counts = Counter(pair["pair_id"] for pair in pairs)
    problems = [
        f"pair_id {name} belongs to {count} pairs; list each pair once, under its own pair_id"
        for name, count in counts.items()
        if count > 1
    ]
    folders: dict[str, str] = {}
    for name in counts:
        other = folders.setdefault(name.lower(), name)
        if other != name:
            problems.append(f"pair_id {other} and {name} are one folder on many disks; give them different letters")
    return problems


def default_names(pair: Mapping[str, str]) -> tuple[str, str]:
    """The ``pair_id`` of a pair without one, and the same with the folders that its images lie in."""
    images = [Path(path) for path in image_paths(pair)]
    return _pair_id(map(stem, images)), _pair_id(f"{path.parent.name}_{stem(path)}" for path in images)


def _pair_id(images: Iterable[str], checked: bool = False) -> str:
    """Name of a pair, from its moving and its fixed image: plain letters, and ``_`` for what a folder should not hold.

    It ends in a checksum if it is long, if it lost letters, and if it is ``checked``.
    """
    full = "_to_".join(images)
    spelled = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", full).translate(UMLAUTS))
    plain = "".join(letter for letter in spelled if not unicodedata.combining(letter))
    name = re.sub(r"[^A-Za-z0-9._-]", "_", plain).lstrip("._-")
    if len(name) <= LONGEST_ID and plain.isascii() and not checked:
        return name
    checksum = hashlib.sha256(full.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{name[: LONGEST_ID - 17]}-{checksum}"


def _shown(value: Any) -> str:
    """A value of a datalist as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
