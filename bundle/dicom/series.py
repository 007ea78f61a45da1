"""The image series of a folder, sorted out whatever way their files are mixed."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from bundle.dicom.geometry import PLANE_TOLERANCE, stack_slices
from bundle.dicom.headers import frames, numbers, read_header

APART = ("EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime", "AcquisitionNumber", "ImageType")
"""What may tell slices at one place apart."""
NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.2")
"""Segmentations and doses: with pixels, but no images to register."""


@dataclass(frozen=True)
class Series:
    """Files that make one volume, or cannot.

    Attributes:
        files: sorted along the slices' normal, the order of the volume's last axis.
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID, empty without.
        modality: such as ``"US"``.
        description: SeriesDescription.
        number: SeriesNumber.
        shape: columns, rows, slices: ``(X, Y, Z)``.
        affine: ``(4, 4)`` voxel to world, mm, RAS.
        problem: why it cannot be registered, in one line; empty when it can.
        remark: what a reader should be warned of.
    """

    files: tuple[Path, ...]
    uid: str
    study: str
    frame: str
    modality: str
    description: str
    number: int | None
    shape: tuple[int, int, int]
    affine: np.ndarray = field(compare=False)
    problem: str = ""
    remark: str = ""

    @property
    def is_volume(self) -> bool:
        """Whether it has slices to stack, be they right or wrong, and is no localizer."""
        return self.shape[2] > 1 and self.problem != LOCALIZER

    def __str__(self) -> str:
        number = "" if self.number is None else f"{self.number} "
        return f"{number}{self.modality} {self.description!r} ({' x '.join(map(str, self.shape))})"


LOCALIZER = "a localizer, which shows where other images lie"
Slice = tuple[Path, Dataset]


def read_series(folder: str | Path) -> Series:
    """The one image of a folder: its volume, else its only slice; localizers and documents beside it are left out.

    Args:
        folder: of DICOM files.

    Returns:
        The series, which can be read.

    Raises:
        ValueError: in one line, when there is none, more than one, or when it is no even, straight volume.
    """
    found, damaged = find_series(folder)
    if damaged:
        raise ValueError(
            f"{len(damaged)} of its .dcm files cannot be read, the first is {damaged[0].name}; the volume has gaps"
        )
    chosen = [series for series in found if series.is_volume] or [one for one in found if one.problem != LOCALIZER]
    if not chosen:
        raise ValueError("cannot be read, a folder without a DICOM series")
    if len(chosen) > 1:
        raise ValueError(
            f"{len(chosen)} DICOM images in one folder: {', '.join(map(str, chosen))}; sort them out by "
            "`python -m bundle dicom_series FOLDER --output_dir SORTED` and name the folder of one"
        )
    (series,) = chosen
    if series.problem:
        raise ValueError(series.problem)
    return series


def find_series(folder: str | Path) -> tuple[list[Series], list[Path]]:
    """Every image series below a folder.

    Slices of a series that differ in size, spacing or orientation are series of their own here, as are those that show
    one place at several echoes, times or other acquisitions.

    Args:
        folder: of DICOM files, mixed in any way; other files are left out.

    Returns:
        The series by number and description, and the files that end too early or are no DICOM although they are called
        ``.dcm``.
    """
    grouped: dict[str, list[Slice]] = defaultdict(list)
    damaged = []
    for path in sorted(Path(folder).rglob("*")):
        if path.name == "DICOMDIR" or not path.is_file():
            continue
        try:
            header = read_header(path)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, struct.error):
            if path.suffix.lower() == ".dcm":
                damaged.append(path)
            continue
        if "Rows" in header and "Columns" in header and header.get("SOPClassUID") not in NO_IMAGES:
            grouped[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    found = [_series(slices, whole) for whole in grouped.values() for slices in _apart(whole)]
    return sorted(found, key=lambda one: (one.number or 0, one.description, str(one.files[0]))), damaged


def check_file(path: Path) -> None:
    """Refuse a file that is no slice or volume of grey values.

    Raises:
        ValueError: saying what it is.
    """
    problem = _no_volume(read_header(path))
    if problem and problem != LOCALIZER:
        raise ValueError(problem)


def _apart(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one series, those of one volume together."""
    planes: list[list[Slice]] = []
    for one in slices:
        for plane in planes:
            if _alike(one[1], plane[0][1]):
                plane.append(one)
                break
        else:
            planes.append([one])
    return [part for plane in planes for part in _acquisitions(plane)]


def _alike(one: Dataset, other: Dataset) -> bool:
    """Whether two slices may belong to one stack."""
    if frames(one) > 1 or frames(other) > 1 or (one.Rows, one.Columns) != (other.Rows, other.Columns):
        return False
    pairs = [(numbers(one, name), numbers(other, name)) for name in ("ImageOrientationPatient", "PixelSpacing")]
    return all(a.shape == b.shape and np.allclose(a, b, rtol=PLANE_TOLERANCE, atol=PLANE_TOLERANCE) for a, b in pairs)


def _acquisitions(slices: list[Slice]) -> list[list[Slice]]:
    """Slices that share places, split by the first attribute that makes stacks of one size of them."""
    if not _share_places(slices):
        return [slices]
    for name in APART:
        parts: dict[str, list[Slice]] = defaultdict(list)
        for one in slices:
            parts[str(one[1].get(name))].append(one)
        # A slice that was taken again is no stack: nobody but the user knows which one is right.
        alike = len({len(part) for part in parts.values()}) == 1
        if len(parts) > 1 and alike and not any(map(_share_places, parts.values())):
            return list(parts.values())
    return [slices]


def _share_places(slices: Sequence[Slice]) -> bool:
    places = [tuple(np.round(numbers(header, "ImagePositionPatient"), 2)) for _, header in slices]
    return len(set(places)) < len(places)


def _series(slices: Sequence[Slice], whole: Sequence[Slice]) -> Series:
    """What a stack of slices is, as part of everything that has its SeriesInstanceUID."""
    header = slices[0][1]
    positions = [numbers(one, "ImagePositionPatient") for _, one in slices]
    orientation, spacing = numbers(header, "ImageOrientationPatient"), numbers(header, "PixelSpacing")
    order, affine, problem = tuple(range(len(slices))), np.eye(4), _no_volume(header)
    if not problem and len(slices) > 1 and not (orientation.size == 6 and all(place.size == 3 for place in positions)):
        problem = "its slices do not say where they lie (no ImagePositionPatient or ImageOrientationPatient)"
    if not problem and orientation.size == 6 and spacing.size == 2 and all(place.size == 3 for place in positions):
        stack = stack_slices(np.array(positions), orientation, spacing.tolist(), [_name(one) for one in slices])
        order, affine, problem = stack.order, stack.affine, stack.problem
    elif not problem and len(slices) > 1:
        problem = "its slices do not say how large their pixels are (no PixelSpacing)"
    number = header.get("SeriesNumber")
    return Series(
        files=tuple(slices[index][0] for index in order),
        uid=str(header.get("SeriesInstanceUID", "")),
        study=str(header.get("StudyInstanceUID", "")),
        frame=str(header.get("FrameOfReferenceUID", "")),
        modality=str(header.get("Modality", "")),
        description=str(header.get("SeriesDescription", "")),
        number=None if number in (None, "") else int(number),
        shape=(int(header.Columns), int(header.Rows), frames(header) if frames(header) > 1 else len(slices)),
        affine=affine,
        problem=problem or _stray(slices, whole),
        remark=_ends([slices[index][1] for index in order], len(whole) == len(slices)),
    )


def _no_volume(header: Dataset) -> str:
    """Why an image cannot be registered whatever its slices are."""
    if "LOCALIZER" in (header.get("ImageType") or []):
        return LOCALIZER
    if frames(header) > 1:
        return (
            f"{frames(header)} frames in one file, whose places are not read; convert it to one file per slice, or to "
            "NIfTI"
        )
    if header.get("SamplesPerPixel", 1) != 1:
        return "an image in colours, expected one value per pixel; convert it to grey"
    return ""


def _stray(slices: Sequence[Slice], whole: Sequence[Slice]) -> str:
    """Slices of the same series and orientation that another size or spacing keeps out of the stack."""
    mine = numbers(slices[0][1], "ImageOrientationPatient")
    others = [one for one in whole if not any(one is each for each in slices) and frames(one[1]) == 1]
    stray = [
        header
        for _, header in others
        if not _alike(header, slices[0][1])
        and np.array_equal(np.round(numbers(header, "ImageOrientationPatient"), 2), np.round(mine, 2))
    ]
    if len(slices) > len(stray) > 0:
        return f"{len(stray)} of its {len(whole)} slices have another size or spacing; export the whole series again"
    return ""


def _ends(headers: Sequence[Dataset], whole: bool) -> str:
    """Slices that may be missing at an end, where positions cannot tell."""
    expected = headers[0].get("ImagesInAcquisition")
    if whole and expected and int(expected) > len(headers):
        return f"{len(headers)} slices, but ImagesInAcquisition is {expected}; slices may be missing at an end"
    counted = sorted(int(one.InstanceNumber) for one in headers if one.get("InstanceNumber") not in (None, ""))
    row = len(counted) == len(headers) > 1 and all(later - one == 1 for one, later in pairwise(counted))
    if whole and row and counted[0] > 1:
        return f"its slices are numbered from {counted[0]} to {counted[-1]}; slices may be missing at an end"
    return ""


def _name(one: Slice) -> str:
    path, header = one
    number = header.get("InstanceNumber")
    return path.name if number in (None, "") else f"number {number}"
