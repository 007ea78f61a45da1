"""Folders of DICOM -> the image series in them, each with its files in order and its grid."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.dicom.frames import Damaged, Frame, read_frames
from bundle.dicom.volume_grid import affine_of, fault_of, has_geometry, notes_of, sorted_along_normal
from bundle.dicom.volumes import stacks

LISTED = 6
"""Series that a message names."""


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one volume, or a planar image; several may be of one series of a scanner.

    Attributes:
        files: along the slices' normal, the order of the volume's last axis; one for a multi-frame image.
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID, empty without one.
        modality: such as MR.
        description: of the series, as it stands in the files.
        number: of the series; None without one.
        shape: (columns, rows, slices), the array's axes.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
        frames: number of each slice in its file, 0 in a file of one.
        localizer: whether it was made to plan other images on.
        positioned: whether its slices have positions in space.
        whole_numbers: whether its values are, after slope and intercept.
        fault: why it cannot be registered, and what to do; empty when it can.
        notes: what a user should know though it can be registered.
    """

    files: tuple[Path, ...]
    uid: str
    study: str
    frame: str
    modality: str
    description: str
    number: int | None
    shape: tuple[int, int, int]
    affine: np.ndarray
    frames: tuple[int, ...]
    localizer: bool
    positioned: bool
    whole_numbers: bool
    fault: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        number = "-" if self.number is None else self.number
        size = " x ".join(map(str, self.shape))
        return " ".join(filter(None, (f"{number}", self.modality, self.description, f"({size})")))


def read_folder(folder: str | Path) -> tuple[list[Series], list[Path]]:
    """Every image series below a folder, and the files that should be DICOM and cannot be read.

    Args:
        folder: with files of any names, in sub-folders too; hidden ones, what is no DICOM and what holds no image
            (reports, registrations, segmentations, DICOMDIR) are left out. Headers are read, no pixels.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"folder not found: {folder}")
    frames: list[Frame] = []
    damaged: list[Path] = []
    for path in _files(Path(folder)):
        try:
            frames += read_frames(path)
        except Damaged:
            damaged.append(path)
    found = stacks(frames)
    parts = Counter(stack[0].text("SeriesInstanceUID") for stack in found)
    return [_series(stack, parts[stack[0].text("SeriesInstanceUID")] == 1) for stack in found], damaged


def find_series(folder: str | Path) -> list[Series]:
    """Every image series below a folder, sorted out whatever way the files are mixed.

    Args:
        folder: as in :func:`read_folder`.

    Returns:
        In the order of their numbers; those that cannot be registered say why in ``fault``.

    Raises:
        ValueError: when a file cannot be read, since a slice would be missing.
    """
    series, damaged = read_folder(folder)
    if damaged:
        raise ValueError(f"{folder}: {_unread(damaged)}")
    return series


def read_series(folder: str | Path) -> Series:
    """The one volume of a folder, though localizers, single images or reports may lie beside it; or a planar image.

    Args:
        folder: as in :func:`read_folder`.

    Raises:
        ValueError: in one line, when there is none, or several, or it cannot be registered.
    """
    try:
        return one_volume(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def one_volume(folder: str | Path) -> Series:
    """As :func:`read_series`; messages do not name the folder."""
    series, damaged = read_folder(folder)
    if damaged:
        raise ValueError(_unread(damaged))
    if not series:
        raise ValueError("cannot be read, a folder without a DICOM series")
    images = [one for one in series if not one.localizer] or series
    volumes = [one for one in images if one.shape[2] > 1]
    candidates = [one for one in volumes if one.positioned] or volumes or images
    sort_out = f"sort them by: python -m bundle dicom_series {shlex.quote(str(folder))} --output_dir OUT"
    if len(candidates) > 1:
        listed = "; ".join(map(str, candidates[:LISTED])) + ("; ..." if len(candidates) > LISTED else "")
        raise ValueError(f"{len(candidates)} {'volumes' if volumes else 'images'}, expected one: {listed}; {sort_out}")
    (found,) = candidates
    if found.fault:
        raise ValueError(found.fault)
    others = sum(one.shape[2] for one in images if one.uid == found.uid and one is not found)
    if others:
        raise ValueError(
            f"{others} of the {others + found.shape[2]} slices of its series have another orientation, spacing or "
            f"size; {sort_out}"
        )
    return found


def _unread(damaged: Sequence[Path]) -> str:
    names = sorted(path.name for path in damaged)
    return f"{len(names)} of its files cannot be read, the first is {names[0]}; the volume has gaps, copy it again"


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder but for hidden ones, in the order of their names."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _series(stack: Sequence[Frame], alone: bool) -> Series:
    """Series of a stack.

    Args:
        stack: its frames.
        alone: whether they are all of the series.
    """
    frames = sorted_along_normal(stack)
    first, fault = frames[0], fault_of(frames)
    return Series(
        files=tuple(dict.fromkeys(frame.path for frame in frames)),
        uid=first.text("SeriesInstanceUID"),
        study=first.text("StudyInstanceUID"),
        frame=first.text("FrameOfReferenceUID"),
        modality=first.text("Modality"),
        description=first.text("SeriesDescription"),
        number=first.whole_number("SeriesNumber"),
        shape=(*first.shape, max(len(frames), first.count)),
        affine=affine_of(frames),
        frames=tuple(frame.index for frame in frames),
        localizer=first.localizer,
        positioned=has_geometry(frames),
        whole_numbers=all(number.is_integer() for frame in frames for number in frame.rescale),
        fault=fault,
        notes=notes_of(frames) if alone and not fault and len(frames) > 1 and first.count == 1 else (),
    )
