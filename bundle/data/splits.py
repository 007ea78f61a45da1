"""Patients, and entries by their patients, split at random into sections."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from bundle.data.entries import Pair
from bundle.data.layouts import SECTIONS


def split_patients(patients: Iterable[str], fractions: Sequence[float], least: int, seed: int) -> dict[str, str]:
    """Split patients at random into sections.

    Args:
        patients: patients; repetitions and order do not matter.
        fractions: share of training, validation and test; a share of 0 leaves a section empty.
        least: fewest patients of a section that is not empty. With too few patients for all sections, test is left
            empty first, then validation.
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
        raise ValueError(f"{wanted[0]} has no pair: {len(names)} patient(s) found, its pairs need at least {least}")
    random.Random(seed).shuffle(names)
    total, sections = len(names), dict.fromkeys(names, wanted[0])
    for before in range(len(wanted) - 1, 0, -1):
        share = max(round(fractions[SECTIONS.index(wanted[before])] * total), least)
        # The sections before this one keep the fewest patients they need.
        for _ in range(min(share, len(names) - least * before)):
            sections[names.pop()] = wanted[before]
    return sections


def split_entries(entries: list[Pair], pairing: str, fractions: Sequence[float], seed: int) -> dict[str, list[Pair]]:
    """Split entries by patient into sections.

    Args:
        entries: pairs or single images of one patient each, a name.
        pairing: as in :func:`bundle.data.datalist.read_datalist`; it says how many patients a section needs.
        fractions: share of training, validation and test.
        seed: seed of the split.

    Returns:
        Entries of each section; nothing without entries, which the problems of their layout explain.

    Raises:
        ValueError: when there are too few patients for one section.
    """
    if not entries:
        return {}
    patients = {entry["patient"] for entry in entries}
    least = 2 if any("image" in entry for entry in entries) else 1
    # Repeat scans are split as for pairs between patients; a data set of one patient has such scans only.
    least = 1 if pairing == "repeat" and len(patients) == 1 else least
    section_of = split_patients(patients, fractions, least, seed)
    return {section: [e for e in entries if section_of[e["patient"]] == section] for section in SECTIONS}
