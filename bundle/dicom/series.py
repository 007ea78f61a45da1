"""From folders of DICOM to the image series in them, each with its files in order and its grid."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.dicom.files import (
    Found,
    cannot_be_told,
    files_below,
    is_dicom,
    kind_of,
    kind_of_name,
    no_image,
    not_read,
    read_header,
    start_of,
)
from bundle.dicom.frames import IDENTITY, Damaged, Frame, read_frames
from bundle.dicom.headers import RESCALE
from bundle.dicom.notes import notes_of
from bundle.dicom.steps import joined, separated
from bundle.dicom.volume_grid import affine_of, fault_of, lacks_slices
from bundle.dicom.volumes import PARALLEL, has_geometry, sorted_along_normal, stacks
from bundle.geometry import spacing_of
from bundle.system.contents import not_an_image
from bundle.system.limits import size

LISTED = 6
"""Most series that a message names."""


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one volume, or a planar image; a scanner's series may hold several of these.

    Attributes:
        files: in the order along the slices' normal, the volume's last axis; one file for a multi-frame image.
        identities: StudyInstanceUID, SeriesInstanceUID, SOPClassUID and SOPInstanceUID of each file; empty if missing.
        frame: FrameOfReferenceUID; empty without one that all slices share and lie in.
        modality: such as MR.
        description: description of the series, as in the files.
        number: number of the series; None if missing.
        shape: (columns, rows, slices), the array's axes.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
        frames: number of each slice in its file; 0 in a file of one slice.
        localizer: whether it was made to plan other images.
        positioned: whether its slices have positions in space.
        rescales: slope and intercept of each file; None if its header has neither.
        fault: why it cannot be registered, and what to do; empty if it can.
        untold: files beside it that are neither DICOM nor text, but are named like slices.
        notes: what a user should know if it can be registered.
    """

    files: tuple[Path, ...]
    identities: tuple[tuple[str, ...], ...]
    frame: str
    modality: str
    description: str
    number: int | None
    shape: tuple[int, int, int]
    affine: np.ndarray
    frames: tuple[int, ...]
    localizer: bool
    positioned: bool
    rescales: tuple[tuple[float, float] | None, ...]
    fault: str
    untold: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def study(self) -> str:
        """StudyInstanceUID of the first file."""
        return self.identities[0][0]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID of the first file."""
        return self.identities[0][1]

    @property
    def whole_numbers(self) -> bool:
        """Whether its values are whole numbers, after slope and intercept."""
        return all(number.is_integer() for rescale in self.rescales for number in rescale or ())

    def __str__(self) -> str:
        number = "-" if self.number is None else str(self.number)
        return " ".join(filter(None, (number, self.modality, self.description, f"({size(self.shape)})")))


def read_folder(folder: str | Path) -> tuple[list[Series], dict[Path, str]]:
    """Every image series below a folder, and files that should be DICOM but cannot be read, with the reason if known.

    Args:
        folder: folder of files with any names, with or without preamble, in sub-folders and behind links too; or one
            file. Files that are not DICOM, or hold no image (reports, registrations, segmentations, DICOMDIR), are left
            out. Only headers are read, no pixels.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    path = Path(folder)
    if not path.exists():
        raise FileNotFoundError(f"folder not found: {folder}")
    below = files_below(path) if path.is_dir() else Found([path])
    frames: list[Frame] = []
    others: list[Path] = []
    damaged = dict(below.lost)
    for file in below.files:
        try:
            read = read_frames(file)
        except (Damaged, OSError) as error:
            damaged[file] = str(error) if isinstance(error, Damaged) else error.strerror or ""
            continue
        frames += read
        others += [] if read else [file]
    found = separated(joined(stacks(frames)))
    parts = Counter(stack[0].text("SeriesInstanceUID") for stack in found)
    kinds = {kind_of_name(frame.path) for frame in frames}
    untold = tuple(file for file in others if cannot_be_told(file, kinds))
    unplaced = [frame for frame in frames if frame.count == 1 and not has_geometry([frame])]
    alone = [parts[stack[0].text("SeriesInstanceUID")] == 1 for stack in found]
    return [_series(stack, one, untold, unplaced) for stack, one in zip(found, alone, strict=True)], damaged


def patient_of(series: Series) -> str:
    """PatientID of a series, to be compared and never shown; empty if it has none."""
    return str(read_header(series.files[0], ["PatientID"]).get("PatientID", ""))


def read_series(folder: str | Path) -> Series:
    """The one volume of a folder, or its planar image; localizers, reports and single images beside it do not count.

    Args:
        folder: as in :func:`read_folder`.

    Raises:
        ValueError: in one line, when there is none or several, or it cannot be registered.
    """
    try:
        return one_volume(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def one_volume(folder: str | Path) -> Series:
    """As :func:`read_series`; messages do not name the folder."""
    series, damaged = read_folder(folder)
    if damaged and Path(folder) in damaged:
        path = Path(folder)
        known = damaged[path] or not_an_image(path)
        reason = known or "damaged or not an image; copy it again"
        raise ValueError(f"cannot be read, {reason}")
    if damaged:
        first = min(damaged, key=lambda path: path.name)
        raise ValueError(not_read(len(damaged), first.name, damaged[first]))
    if not series:
        path = Path(folder)
        what = f"a folder without a DICOM series{_others(path)}" if path.is_dir() else no_image(path)
        raise ValueError(f"cannot be read, {what}")
    images = [one for one in series if not one.localizer] or series
    volumes = [one for one in images if one.shape[2] > 1]
    candidates = [one for one in volumes if one.positioned] or volumes or images
    command = f"python -m bundle dicom_series {shlex.quote(str(folder))}"
    if len(candidates) > 1:
        listed = "; ".join(map(str, candidates[:LISTED])) + ("; ..." if len(candidates) > LISTED else "")
        sound = any(one.shape[2] > 1 and not one.fault for one in candidates)
        todo = f"sort them by: {command} --output_dir OUT" if sound else f"why none is a volume says: {command}"
        what = "parallel stacks of one series" if _parallel(candidates) else "volumes" if volumes else "images"
        raise ValueError(f"{len(candidates)} {what}, expected one: {listed}; {todo}")
    (found,) = candidates
    if found.fault:
        raise ValueError(found.fault)
    others = [one for one in images if one.uid == found.uid and one is not found]
    if others:
        count = sum(one.shape[2] for one in others)
        how = "another orientation, spacing or size" if all(one.positioned for one in others) else "no place in space"
        raise ValueError(
            f"{count} of the {count + found.shape[2]} slices of its series have {how}; sort them by: {command} "
            "--output_dir OUT"
        )
    return found


def _parallel(series: Sequence[Series]) -> bool:
    """Whether these are volumes of one series in parallel planes, and none lies where another begins."""
    axes = [one.affine[:3, :3] / spacing_of(one.affine) for one in series]
    same = len({one.uid for one in series}) == 1 and np.allclose(axes, axes[0], atol=PARALLEL)
    return same and len({tuple(one.affine[:3, 3]) for one in series}) == len(series) > 1


def _others(folder: Path) -> str:
    """What a folder without an image holds instead: other objects of DICOM, or an archive."""
    dicom = [path for path in files_below(folder).files if is_dicom(start_of(path))]
    kinds = sorted({kind_of(path) for path in dicom} - {""})
    if kinds:
        return f", but with {', '.join(kinds)}; name the folder of an image, or convert it to NIfTI"
    for path in files_below(folder).files:
        if what := not_an_image(path):
            return f", but with {path.name}: {what}"
    return ""


def _series(stack: Sequence[Frame], alone: bool, untold: tuple[Path, ...], unplaced: Sequence[Frame]) -> Series:
    """Series of a stack.

    Args:
        stack: frames of the stack.
        alone: whether these are all frames of the series.
        untold: files beside it.
        unplaced: slices of the folder that have no place.
    """
    frames = sorted_along_normal(stack)
    first, fault = frames[0], lacks_slices(frames, unplaced) or fault_of(frames)
    files = {frame.path: frame for frame in frames}
    places = {frame.text("FrameOfReferenceUID") for frame in frames}
    return Series(
        files=tuple(files),
        identities=tuple(tuple(frame.text(keyword) for keyword in IDENTITY) for frame in files.values()),
        frame=places.pop() if len(places) == 1 and not first.in_volume else "",
        modality=first.text("Modality"),
        description=first.text("SeriesDescription"),
        number=first.whole_number("SeriesNumber"),
        shape=(*first.shape, max(len(frames), first.count)),
        affine=affine_of(frames),
        frames=tuple(frame.index for frame in frames),
        localizer=all(frame.localizer for frame in frames),
        positioned=has_geometry(frames),
        rescales=tuple(
            frame.rescale if any(keyword in frame.values for keyword in RESCALE) else None for frame in files.values()
        ),
        fault=fault,
        untold=untold,
        notes=() if fault else (*notes_of(frames, alone), *_noted(untold)),
    )


def _noted(untold: Sequence[Path]) -> Iterator[str]:
    if untold:
        what = "1 file beside it is" if len(untold) == 1 else f"{len(untold)} files beside it are"
        yield f"{what} neither DICOM nor text, the first {untold[0].name}; if it was a slice, copy it again"
