"""A flat folder of slices ``<volume>_<number>.<suffix>`` -> entries: pairs of neighbouring slices, or single slices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.data.layouts import SUFFIXES, stem
from bundle.data.loading import load_image
from bundle.data.problems import dimensions
from bundle.data.saving import PICTURE_SUFFIXES

SLICE = re.compile(r"(.+)_(\d+)")
# A .dcm file is a part of a series, which is a folder.
SLICE_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".dcm")


def has_slices(root: Path) -> bool:
    """Whether a slice lies directly in a folder; volumes numbered the same way (``case_001.nii.gz``) are none."""
    named = (path for path in _images(root) if SLICE.fullmatch(stem(path)))
    first = next(named, None)
    return first is not None and (first.suffix.lower() in PICTURE_SUFFIXES or _is_slice(first))


def _is_slice(path: Path) -> bool:
    try:
        return dimensions(load_image(str(path)).shape[1:]) == 2
    except Exception:  # every reader fails in its own way; what cannot be read says nothing of the layout
        return False


def slice_entries(root: Path, pairing: str, patients: Mapping[str, str], problems: list[str]) -> list[dict[str, Any]]:
    """Entries of a folder of slices, every one with its patient: the volume, unless ``patients.csv`` names another.

    "Adjacent two slices were defined as a (M, F) pair" (Park et al. 2021, section 3): the moving image is slice n of
    a volume, the fixed image slice n + 1.

    Args:
        root: folder with files such as ``A_047.png``.
        pairing: ``paired`` for pairs of neighbours; anything else gives the slices as single images.
        patients: patient of each slice by file name, or of each volume by its name; when empty, each volume is one.
        problems: takes up what is wrong.

    Returns:
        Pairs, or single images, in the order of volumes and numbers.

    Raises:
        ValueError: when no volume has two neighbouring slices to pair.
    """
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


def _images(root: Path) -> list[Path]:
    """Image files directly in a folder."""
    files = (path for path in root.iterdir() if path.name.lower().endswith(SLICE_SUFFIXES) and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def _volumes(root: Path, problems: list[str]) -> dict[str, dict[int, Path]]:
    """Slices of each volume by their number."""
    volumes: dict[str, dict[int, Path]] = {}
    others = []
    for path in _images(root):
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
