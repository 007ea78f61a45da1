"""From a folder of mixed DICOM to a table of its series, and a folder for every volume."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from bundle.dicom.series import Series, patient_of, read_folder
from bundle.geometry import spacing_of
from bundle.system import whole_folder
from bundle.system.limits import size

LONGEST_NAME = 60


def list_series(folder: str | Path, output_dir: str | Path | None = None) -> tuple[list[str], bool]:
    """List the series below a folder, and whether each can be registered.

    Args:
        folder: as in :func:`bundle.dicom.read_folder`.
        output_dir: folder to which every volume that can be registered is copied, into a folder of its own named by the
            number and the description of its series, below a folder of its patient or study if there are several; None
            copies nothing.

    Returns:
        One line for every series and every unreadable file, and a first one if there are several patients or studies;
        whether all files can be read and there is a volume.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it holds no series, or an output folder exists already.
    """
    series, damaged = read_folder(folder)
    if not series and not damaged:
        raise ValueError(f"{folder}: no DICOM series in it or below")
    owners, lines = _owners(series)
    series = sorted(series, key=lambda one: [int(number) for number in re.findall(r"\d+", owners[one])])
    volumes = [one for one in series if can_be_registered(one)]
    targets = _targets(volumes, owners, Path(folder), Path(output_dir)) if output_dir else {}
    for one in series:
        target = targets.get(one)
        if target:
            _copy(one.files, target)
        whose = _whose(one, owners[one], Path(folder))
        lines.append(f"{_described(one)}{whose}: {_verdict(one)}{f' -> {target}' if target else ''}")
    lines += [
        f"{path}: cannot be read, {reason or 'the series it belongs to may have gaps; copy it again'}"
        for path, reason in damaged.items()
    ]
    return lines, bool(volumes) and not damaged


def can_be_registered(series: Series) -> bool:
    """Whether it is a volume without a fault, and not a localizer."""
    return series.shape[2] > 1 and not series.fault and not series.localizer


def _described(series: Series) -> str:
    spacing = size([f"{length:.3g}" for length in spacing_of(series.affine)])
    return f"{series}, {f'{spacing} mm' if series.positioned else 'no geometry'}"


def _verdict(series: Series) -> str:
    if series.fault:
        return f"no, {series.fault}"
    if series.localizer:
        return "no, a localizer"
    if series.shape[2] == 1:
        return "no, a single slice, not a volume"
    return "; ".join(("can be registered", *series.notes))


def _owners(series: Sequence[Series]) -> tuple[dict[Series, str], list[str]]:
    """Whose each series is, as numbers that reveal nobody, and a line that counts patients and studies.

    Returns:
        A name such as ``patient1/study2`` for each series, empty if all are of one study; the line, if there is one.
    """
    found = {one: (patient_of(one), one.study) for one in sorted(series, key=lambda one: one.files[0])}
    whole = all(patient for patient, _ in found.values())
    studies: dict[str, dict[tuple[str, str], None]] = {}
    for key in found.values():
        studies.setdefault(key[0] if whole else "", {})[key] = None
    number = sum(map(len, studies.values()))
    names = {}
    for i, own in enumerate(studies.values(), 1):
        for j, key in enumerate(own, 1):
            parts = [f"patient{i}"] * (len(studies) > 1) + [f"study{j}"] * (len(own) > 1)
            names[key] = "/".join(parts)
    # Without every PatientID, nobody knows how many patients there are.
    patients = f"{len(studies)} patient{'s' * (len(studies) > 1)}, " if whole else ""
    return {one: names[key] for one, key in found.items()}, [f"{patients}{number} studies"] if number > 1 else []


def _whose(series: Series, owner: str, folder: Path) -> str:
    """Whose a series is, and the sub-folder that holds all its files."""
    place = os.path.relpath(os.path.commonpath([path.parent for path in series.files]), folder)
    return f", {owner}{f' in {place}' if place != '.' else ''}" if owner else ""


def _targets(series: Sequence[Series], owners: Mapping[Series, str], folder: Path, output: Path) -> dict[Series, Path]:
    """Where each series goes; problems are reported before anything is copied."""
    if output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output} is in {folder}, whose series would be there twice; give an output_dir elsewhere")
    targets: dict[Series, Path] = {}
    first: dict[tuple[str, str, str], Path] = {}
    taken: set[str] = set()
    for one in series:
        path = output / owners[one] / _name(one)
        known = first.get((owners[one], one.uid, path.name))
        others = (
            (known.with_name(f"{known.name}_part{number}") for number in count(2))
            if known
            else chain([path], (path.with_name(f"{path.name}_series{number}") for number in count(2)))
        )
        # Names that differ in case are one folder on many disks.
        targets[one] = next(other for other in others if str(other).lower() not in taken)
        taken.add(str(targets[one]).lower())
        first.setdefault((owners[one], one.uid, path.name), targets[one])
    there = [target for target in targets.values() if target.exists()]
    if there:
        raise ValueError(f"{there[0]} is there already; give a new output_dir")
    return targets


def _name(series: Series) -> str:
    """Name made of number and description, with letters, digits and ``_``, and nothing about the patient."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", series.description or series.modality).strip("_")[:LONGEST_NAME] or "series"
    return words if series.number is None else f"{series.number:03d}_{words}"


def _copy(files: Sequence[Path], target: Path) -> None:
    """Copy files under names in slice order; the folder is complete or not there."""
    with whole_folder(target) as folder:
        for number, path in enumerate(files):
            shutil.copyfile(path, folder / f"{number:04d}.dcm")
