"""From a folder of mixed DICOM to a table of its series, and a folder for every volume."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bundle.dicom.series import Series, read_folder
from bundle.geometry import spacing_of
from bundle.system import whole_folder

LONGEST_NAME = 60


def list_series(folder: str | Path, output_dir: str | Path | None = None) -> tuple[list[str], bool]:
    """List the series below a folder, and whether each can be registered.

    Args:
        folder: as in :func:`bundle.dicom.read_folder`.
        output_dir: folder to which every volume that can be registered is copied, into a folder of its own named by the
            number and the description of its series; None copies nothing.

    Returns:
        One line for every series and every unreadable file; whether all files can be read and there is a volume.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it holds no series, or an output folder exists already.
    """
    series, damaged = read_folder(folder)
    if not series and not damaged:
        raise ValueError(f"{folder}: no DICOM series in it or below")
    volumes = [one for one in series if can_be_registered(one)]
    targets = _targets(volumes, Path(folder), Path(output_dir)) if output_dir else {}
    lines = []
    for one in series:
        target = targets.get(one)
        if target:
            _copy(one.files, target)
        lines.append(f"{_described(one)}: {_verdict(one)}{f' -> {target}' if target else ''}")
    lines += [
        f"{path}: cannot be read, {reason or 'the series it belongs to may have gaps; copy it again'}"
        for path, reason in damaged.items()
    ]
    return lines, bool(volumes) and not damaged


def can_be_registered(series: Series) -> bool:
    """Whether it is a volume without a fault, and not a localizer."""
    return series.shape[2] > 1 and not series.fault and not series.localizer


def _described(series: Series) -> str:
    spacing = spacing_of(series.affine)
    size = f"{' x '.join(f'{length:.3g}' for length in spacing)} mm" if series.positioned else "no geometry"
    return f"{series}, {size}"


def _verdict(series: Series) -> str:
    if series.fault:
        return f"no, {series.fault}"
    if series.localizer:
        return "no, a localizer"
    if series.shape[2] == 1:
        return "no, a single slice, not a volume"
    return "; ".join(("can be registered", *series.notes))


def _targets(series: Sequence[Series], folder: Path, output: Path) -> dict[Series, Path]:
    """Where each series goes; problems are reported before anything is copied."""
    if output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output} is in {folder}, whose series would be there twice; give an output_dir elsewhere")
    names: list[str] = []
    for one in series:
        name = _name(one)
        alike = sum(re.fullmatch(rf"{name}(_part\d+)?", other, re.IGNORECASE) is not None for other in names)
        names.append(f"{name}_part{alike + 1}" if alike else name)
    there = [output / name for name in names if (output / name).exists()]
    if there:
        raise ValueError(f"{there[0]} is there already; give a new output_dir")
    return {one: output / name for one, name in zip(series, names, strict=True)}


def _name(series: Series) -> str:
    """Name made of number and description, with letters, digits and ``_``, and nothing about the patient."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", series.description or series.modality).strip("_")[:LONGEST_NAME] or "series"
    return words if series.number is None else f"{series.number:03d}_{words}"


def _copy(files: Sequence[Path], target: Path) -> None:
    """Copy files under names in slice order; the folder is complete or not there."""
    with whole_folder(target) as folder:
        for number, path in enumerate(files):
            shutil.copyfile(path, folder / f"{number:04d}.dcm")
