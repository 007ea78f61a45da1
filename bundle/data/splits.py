"""Sections of a data set: random splits of patients and their entries, the choice of pairs, and pairs of one side."""

from __future__ import annotations

import random
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from bundle.data.layouts import SECTIONS, composed, stem
from bundle.data.validation import Pair, image_paths
from bundle.system.errors import DataWarning
from bundle.system.text import and_more

ONE_SIDED = {
    "fixed_landmarks": "moving_landmarks",
    "moving_landmarks": "fixed_landmarks",
    "fixed_label": "moving_label",
}
"""Files of an image that are of no use without that of the other; a moving label alone is moved."""
LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def split_patients(patients: Iterable[str], fractions: Sequence[float], least: int, seed: int) -> dict[str, str]:
    """Split patients at random into sections.

    Args:
        patients: patients; repetitions and order do not matter.
        fractions: share of training, validation and test; a share of 0 leaves a section empty.
        least: fewest patients of a section that is not empty. If there are too few patients for all sections, test is
            left empty first, then validation.
        seed: seed of the split.

    Returns:
        Section of each patient.

    Raises:
        ValueError: when there are too few patients for one section.
    """
    names = sorted(set(patients))
    wanted = [section for section, fraction in zip(SECTIONS, fractions, strict=True) if fraction > 0]
    while len(wanted) > 1 and len(names) < least * len(wanted):
        wanted.pop()
    if len(names) < least:
        raise ValueError(
            f"{wanted[0]} has no pair: {len(names)} patient(s) found, its pairs need at least {least}: {names}"
        )
    random.Random(seed).shuffle(names)
    total, sections = len(names), dict.fromkeys(names, wanted[0])
    for before in range(len(wanted) - 1, 0, -1):
        share = max(round(fractions[SECTIONS.index(wanted[before])] * total), least)
        # Leave the earlier sections the fewest patients they need.
        for _ in range(min(share, len(names) - least * before)):
            sections[names.pop()] = wanted[before]
    return sections


def split_folds(patients: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """Divide patients at random into folds whose sizes differ by one at most.

    Args:
        patients: patients; repetitions and order do not matter.
        folds: number of folds.
        seed: seed of the division.

    Returns:
        Fold of each patient, from 0.

    Raises:
        ValueError: when there is one fold, or there are fewer patients than folds.
    """
    names = sorted(set(patients))
    if not 2 <= folds <= len(names):
        raise ValueError(f"folds is {folds}, expected 2 or more, and at most the {len(names)} patients of training")
    random.Random(f"{seed}/folds").shuffle(names)
    return {name: number % folds for number, name in enumerate(names)}


def split_entries(entries: list[Pair], pairing: str, fractions: Sequence[float], seed: int) -> dict[str, list[Pair]]:
    """Split entries by patient into sections, each task separately, so that small tasks are trained on too.

    Args:
        entries: pairs or single images of one patient each, a name.
        pairing: as in :func:`bundle.data.datalist.read_datalist`; it decides how many patients a section needs.
        fractions: share of training, validation and test.
        seed: seed of the split.

    Returns:
        Entries of each section; empty if there are none, which the problems of their layout explain.

    Raises:
        ValueError: when a task has too few patients for one section.
    """
    section_of: dict[str, str] = {}
    of_singles = {entry["patient"] for entry in entries if "image" in entry}
    for patients in _groups(entries):
        # Repeat scans are split like pairs between patients; a data set of one patient has only repeat scans.
        alone = pairing == "repeat" and len(patients) == 1
        least = 1 if alone or of_singles.isdisjoint(patients) else 2
        section_of |= split_patients(patients, fractions, least, seed)
    return {section: [e for e in entries if section_of[e["patient"]] == section] for section in SECTIONS}


def _groups(entries: Iterable[Pair]) -> list[set[str]]:
    """Patients of each task; tasks that share a patient are joined."""
    of_task: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        of_task[entry.get("task", "")].add(entry["patient"])
    groups: list[set[str]] = []
    for patients in of_task.values():
        shared = [group for group in groups if not group.isdisjoint(patients)]
        groups = [*(group for group in groups if group not in shared), patients.union(*shared)]
    return groups


def require(sections: Mapping[str, Sequence[Any]], *names: str, what: str = "pairs") -> None:
    """Refuse sections without pairs, or images.

    Args:
        sections: pairs, or images, of each section.
        names: sections that are needed.
        what: what the error calls them.

    Raises:
        ValueError: when one of them has none.
    """
    empty = [name for name in names if not sections.get(name)]
    if empty:
        counts = ", ".join(f"{name} {len(pairs)}" for name, pairs in sections.items())
        raise ValueError(
            f"no {' and no '.join(empty)} {what} (found: {counts}); add them, or change split or pair_limits"
        )


def select_pairs(
    sections: Mapping[str, Sequence[Pair]], section: str | None = None, landmarks: bool = True
) -> list[Pair]:
    """Pairs of one section, or of all of them.

    Args:
        sections: pairs of each section.
        section: name of the section; None for all.
        landmarks: False leaves out the files of landmarks, which only a result is measured by.

    Returns:
        At least one pair.

    Raises:
        ValueError: when there is no such section, or no pair in it.
    """
    if section is not None and section not in sections:
        raise ValueError(f"no section {section!r}; expected one of {', '.join(sections)}, or none for all")
    if section is not None:
        require(sections, section)
    pairs = [pair for name in sections if section in (None, name) for pair in sections[name]]
    if not pairs:
        raise ValueError("the data set has no pairs; list some in the datalist")
    if landmarks:
        return pairs
    return [{key: value for key, value in pair.items() if not key.endswith("landmarks")} for pair in pairs]


def tell_one_sided(sections: Mapping[str, Sequence[Pair]]) -> None:
    """Warn of pairs that have a file of one image which is of no use without that of the other.

    Args:
        sections: pairs and single images of each section.
    """
    for key, other in ONE_SIDED.items():
        found = [pair for pairs in sections.values() for pair in pairs if key in pair and other not in pair]
        if found:
            first = found[0][key]
            file = f"{first}{and_more(found)}: " if isinstance(first, str | PathLike) else ""  # or in memory
            warnings.warn(
                f"{file}{key} without {other}, which is not used; give both, or neither", DataWarning, stacklevel=2
            )


def tell_unlisted(sections: Mapping[str, Sequence[Mapping[str, Any]]], patients: Mapping[str, str]) -> None:
    """Warn of images without a patient, each a patient of its own, that a ``patients.csv`` does not name.

    One that is misspelt there could be registered to its own patient as to another, and be in two sections.

    Args:
        sections: pairs and single images of each section, before they get their patients.
        patients: patient of each image by file name, as in ``patients.csv``.
    """
    entries = (entry for listed in sections.values() for entry in listed if "patient" not in entry)
    images = dict.fromkeys(path for entry in entries for path in image_paths(entry))
    unlisted = [image for image in images if stem(image) not in patients]
    if patients and unlisted:
        note = "not in patients.csv, so it counts as a patient of its own; add its line"
        warnings.warn(f"{unlisted[0]}{and_more(unlisted)}: {note}", DataWarning, stacklevel=2)


def tell_alike(sections: Mapping[str, Sequence[Pair]]) -> None:
    """Warn of patients whose names differ by capitals, spaces or leading zeros alone, and who may be one.

    They would be registered to each other as two patients, and be in two sections.

    Args:
        sections: pairs and single images of each section, with their patients.
    """
    spellings: dict[str, dict[str, None]] = defaultdict(dict)
    for name in dict.fromkeys(name for pairs in sections.values() for pair in pairs for name in pair["patient"]):
        plain = LEADING_ZEROS.sub("", "".join(composed(name).casefold().split()))
        spellings[plain][name] = None
    found = [" and ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        note = f"{found[0]} count as different patients{more}; if they are one, spell them alike"
        warnings.warn(note, DataWarning, stacklevel=2)
