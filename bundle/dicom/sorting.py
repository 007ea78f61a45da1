"""The series of a folder as a person reads them, and in folders of their own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np

from bundle.dicom.series import Series


def listing(found: Sequence[Series], damaged: Sequence[Path]) -> list[str]:
    """One line per series, with its size and spacing or why it cannot be registered, and one about damaged files."""
    lines = [f"{series}: {series.problem or _fit(series)}" for series in found] or ["no DICOM images"]
    if damaged:
        lines.append(f"{len(damaged)} .dcm files cannot be read, the first is {damaged[0]}")
    return lines


def _fit(series: Series) -> str:
    spacing = " x ".join(f"{length:.3g}" for length in np.linalg.norm(series.affine[:3, :3], axis=0))
    what = "a slice, for configs/inference_2d.yaml" if series.shape[2] == 1 else f"{spacing} mm, can be registered"
    return what + (f"; {series.remark}" if series.remark else "")


def sort_out(found: Sequence[Series], folder: Path) -> list[Path]:
    """Copy the files of every series that can be registered into a folder named by its number and description.

    Args:
        found: series, of which localizers and those with a problem are left out.
        folder: new folder for those of the series.

    Returns:
        The folders.

    Raises:
        FileExistsError: when the folder is there.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name a folder that is new")
    partial = folder.with_name(f".partial.{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    names = []
    for series in found:
        if series.problem:
            continue
        base = f"{'' if series.number is None else series.number}_{series.modality}_{series.description}"
        base = re.sub(r"[^A-Za-z0-9]+", "_", base).strip("_") or "series"
        name = next(each for each in chain([base], (f"{base}_{turn}" for turn in count(2))) if each not in names)
        names.append(name)
        place = partial / name
        place.mkdir(parents=True)
        for number, path in enumerate(series.files):
            shutil.copyfile(path, place / f"{number + 1:04d}.dcm")
    if names:
        partial.rename(folder)
    return [folder / name for name in names]
