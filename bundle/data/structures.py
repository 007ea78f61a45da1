"""Named structures: what the channels (or values) of a label are, and which structures of two labels correspond."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.data.layouts import SIDES, stem
from bundle.formats.parts import segment_doubt
from bundle.system.limits import Refused, exists, read_whole
from bundle.system.text import and_more, load_json

STRUCTURES = "structures"
FILE = "structures.json"
DEFAULT = "default"
"""Key of ``structures.json`` for the images that it does not name."""
MOST_VALUES = 6
"""Most values of a label that a message names."""
EXAMPLE = '{"gland": 0, "apex": 1}'
# Keys of an entry's structures, of their label, and of its image.
PARTS = tuple((f"{side}{STRUCTURES}", f"{side}label", f"{side}image") for side in ("", "fixed_", "moving_"))


class Correspondence(NamedTuple):
    """A structure of both labels of a pair: its name (or number), and its channel or value in either label.

    A number is None where the label lacks the structure.
    """

    name: str | int
    fixed: int | None
    moving: int | None


def one_patient(pair: Mapping[Any, Any]) -> bool:
    """Whether both images of a pair are known to be of one patient."""
    return len(pair.get("patient", ())) == 1


def by_name(pair: Mapping[Any, Any]) -> bool:
    """Whether the structures of a pair correspond by name: both labels have names, of different patients."""
    return not one_patient(pair) and all(f"{side}_{STRUCTURES}" in pair for side in SIDES)


def corresponding(pair: Mapping[Any, Any], numbers: Iterable[int]) -> list[Correspondence]:
    """Which channels (or values) of the two labels of a pair show the same structure.

    Between patients with named structures: those whose name both labels have. Within a patient: all by number,
    including the patient's own landmarks, with the name that either label gives. Without names: all by number.

    Args:
        pair: a pair with ``patient``, and ``fixed_structures`` and ``moving_structures`` if its labels have names.
        numbers: what may correspond by number: the channels that both labels have, or the values found in them.

    Returns:
        Correspondences: by name in the order of the fixed label's numbers, else in the given order.
    """
    fixed, moving = ({name: int(k) for name, k in (pair.get(key) or {}).items()} for key, *_ in PARTS[1:])
    if by_name(pair):
        shared = sorted(fixed.keys() & moving.keys(), key=lambda name: fixed[name])
        return [Correspondence(name, fixed[name], moving[name]) for name in shared]
    names = {k: name for found in (moving, fixed) for name, k in found.items()} if one_patient(pair) else {}
    return [Correspondence(names.get(k, k), k, k) for k in numbers]


def clean_structures(value: Any, where: str, problems: list[str]) -> dict[str, int]:
    """Structures of a label: a number for each name, and a name for each number.

    Args:
        value: the value as it was read.
        where: its name in messages.
        problems: list to which problems are added, one line each.

    Returns:
        Numbers by name, without invalid ones.
    """
    if not isinstance(value, dict):
        problems.append(f"{where} is {value!r}, expected the channel (from 0) or label value of each name: {EXAMPLE}")
        return {}
    names: dict[int, str] = {}
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0 or not name:
            expected = f"expected a name and its channel (from 0) or label value: {EXAMPLE}"
            problems.append(f"{where} has {name!r}: {number!r}, {expected}")
        elif number in names:
            problems.append(f"{where} calls {number} both {names[number]} and {name}; keep one name")
        else:
            names[number] = name
    return {name: number for number, name in names.items()}


def read_structures(folder: Path, problems: list[str]) -> dict[str, dict[str, int]]:
    """Structures of the labels of a folder, from its ``structures.json``.

    Args:
        folder: folder of a data set.
        problems: list to which problems of the file are added.

    Returns:
        Structures by the file name of the image, and those of all other images under ``default``; empty when there is
        no such file.
    """
    path = folder / FILE
    if not exists(path):
        return {}
    try:
        content = load_json(read_whole(path))
    except Refused as error:
        problems.append(f"{path}: {error}")
        return {}
    except (ValueError, RecursionError) as error:
        problems.append(f"{path} is not valid JSON ({error}); correct the file")
        return {}
    if not isinstance(content, dict):
        expected = f'{{"{DEFAULT}": {EXAMPLE}, "name of an image": {EXAMPLE}}}'
        problems.append(f"{path} holds a {type(content).__name__}, expected structures by image: {expected}")
        return {}
    cleaned: dict[str, dict[str, int]] = {}
    for image, value in content.items():
        if stem(image) in cleaned:
            problems.append(f"{path} names the image {stem(image)} twice; keep one of them")
        cleaned[stem(image)] = clean_structures(value, f"{path}: {image}", problems)
    return cleaned


def complete_structures(sections: Mapping[str, list[dict[str, Any]]], root: Path, problems: list[str]) -> None:
    """Give every label without structures those of ``structures.json``, the task's own or the data set's.

    Args:
        sections: cleaned entries of each section, changed in place.
        root: folder of the data set.
        problems: list to which problems are added, one line each.
    """
    tables: dict[Path, dict[str, dict[str, int]]] = {}
    used: dict[Path, set[str]] = {}
    for entry in (entry for entries in sections.values() for entry in entries):
        folder = next((folder for folder in _folders(entry, root) if exists(folder / FILE)), None)
        if folder is None:
            continue
        if folder not in tables:
            tables[folder] = read_structures(folder, problems)
        for key, label, image in PARTS:
            if image in entry:
                name = stem(entry[image])
                used.setdefault(folder, {DEFAULT}).add(name)
                stated = tables[folder].get(name, tables[folder].get(DEFAULT))
                if label in entry and key not in entry and stated is not None:
                    entry[key] = stated
    for folder, table in tables.items():
        # The file may also name images of the other side, or of no section.
        others = table.keys() - used[folder]
        there = {stem(path) for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth)} if others else set()
        problems += [
            f"{folder / FILE} names the image {name}, which is not there; correct the name"
            for name in sorted(others - there)
        ]


def _folders(entry: Mapping[str, Any], root: Path) -> list[Path]:
    return [root / entry["task"], root] if "task" in entry else [root]


def structure_conflicts(sections: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Names to which the labels of one patient give different numbers, though these correspond by number.

    Args:
        sections: pairs of each section.

    Returns:
        Problems, one line for each name of a patient.
    """
    found: dict[tuple[str, str], str] = {}
    for pair in (pair for pairs in sections.values() for pair in pairs if one_patient(pair)):
        fixed, moving = (pair.get(key, {}) for key, *_ in PARTS[1:])
        for name in fixed:
            if fixed[name] != moving.get(name, fixed[name]):
                (patient,) = pair["patient"]
                found.setdefault(
                    (patient, name),
                    f"{name} is number {moving[name]} in one label of patient {patient} and {fixed[name]} in another; "
                    "the channels (or values) of one patient correspond by number, so number them alike",
                )
    return list(found.values())


def unshared_values(pairs: Iterable[Mapping[str, Any]], values: Mapping[str, Iterable[float]]) -> list[str]:
    """Pairs of integer maps without a value that both have, such as 1 and 255 of the same structure.

    Nothing can be compared in them, or learned from them.

    Args:
        pairs: the pairs, with the paths of their labels.
        values: values of each integer map, by its path.

    Returns:
        Problems, one line for all pairs with the same values.
    """
    found: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for pair in pairs:
        labels = [pair.get(f"{side}_label") for side in SIDES]
        if not by_name(pair) and all(label in values for label in labels):
            fixed, moving = ({value for value in values[str(label)] if value != 0} for label in labels)
            if fixed and moving and fixed.isdisjoint(moving):
                found.setdefault((tuple(sorted(fixed)), tuple(sorted(moving))), []).append(pair["pair_id"])
    problems = []
    for numbers, names in found.items():
        fixed_values, moving_values = (", ".join(f"{value:.0f}" for value in side[:MOST_VALUES]) for side in numbers)
        problems.append(
            f"pair {names[0]}{and_more(names)}: the fixed label has the values {fixed_values} and the moving label "
            f"{moving_values}, none of which is in both; give a structure one value in both"
        )
    return problems


def differing_names(pairs: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """The lines of ``segment_doubt`` about pairs of segmentations, each once; those that correspond by name have none.

    Args:
        pairs: the pairs, with the paths of their labels.
        names: names of the segments of each label, by its path.
    """
    labels = ([names.get(pair.get(f"{side}_label", ""), "") for side in SIDES] for pair in pairs if not by_name(pair))
    return list(dict.fromkeys(line for fixed, moving in labels if (line := segment_doubt(fixed, moving))))


def mixed_forms(pairs: Iterable[Mapping[str, Any]], channels: Mapping[str, int]) -> list[str]:
    """Pairs of an integer map and a label with a channel per structure, whose numbers say nothing of each other.

    Args:
        pairs: the pairs, with the paths of their labels.
        channels: number of channels of each label, by its path; one is an integer map.

    Returns:
        Problems, one line for all pairs with the same numbers of channels.
    """
    found: dict[tuple[int, int], list[str]] = {}
    for pair in pairs:
        fixed, moving = (channels.get(pair.get(f"{side}_label", ""), 0) for side in SIDES)
        if fixed and moving:
            found.setdefault((fixed, moving), []).append(pair["pair_id"])
    return [line for counts, names in found.items() if (line := mixed_form(names, *counts))]


def mixed_form(names: Sequence[str], fixed: int, moving: int) -> str:
    """A line about pairs of an integer map and a label with channels; empty if both labels have one form.

    Args:
        names: the pairs.
        fixed: number of channels of their fixed labels.
        moving: number of channels of their moving labels.
    """
    if (fixed == 1) == (moving == 1):
        return ""
    return (
        f"pair {names[0]}{and_more(names)}: fixed_label has {fixed} channel(s) and moving_label {moving}; give both as "
        "integer maps or both with one structure per channel"
    )
