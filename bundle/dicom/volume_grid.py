"""A stack of slices -> the grid of its volume, and what keeps it from being one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import itk
import numpy as np
from pydicom.uid import UID

from bundle.dicom.frames import Frame
from bundle.dicom.volumes import PARALLEL, heights, most_at_one_place, normal
from bundle.geometry import RAS_TO_LPS

SHEAR_DEGREES, SHEAR_PIXELS = 0.1, 0.1
"""A stack is sheared when it leans by more than both; less is what rounded numbers of a header make."""
UNEVEN = 0.1
"""Part of the distance of slices by which one may be off its place."""
CONVERT = "convert it to single frames"
UNREAD = "its headers cannot be read by ITK; copy it again, or convert it to NIfTI"
UNREAD_SYNTAX = re.compile(r"^1\.2\.840\.10008\.1\.2\.4\.[12]\d\d")
"""Video, JPEG XL and High-Throughput JPEG 2000."""


def sorted_along_normal(stack: Sequence[Frame]) -> list[Frame]:
    """Slices in the order of the volume's last axis; those without a position by their numbers."""
    if not has_geometry(stack):
        return sorted(
            stack, key=lambda frame: (frame.whole_number("InstanceNumber") or 0, frame.index, frame.path.name)
        )
    return [stack[number] for number in np.argsort(heights(stack), kind="stable")]


def has_geometry(stack: Sequence[Frame]) -> bool:
    """Whether every slice has a position, an orientation and a spacing."""
    return all(frame.position and frame.plane for frame in stack)


def affine_of(stack: Sequence[Frame]) -> np.ndarray:
    """Voxel-to-world affine ``(4, 4)``, mm, RAS, of sorted slices.

    Column ``c`` and row ``r`` of slice ``k`` lie at ``S_k + x c dx + y r dy`` (DICOM PS3.3, C.7.6.2.1.1) with ``x, y``
    the two halves of ImageOrientationPatient, ``dx, dy`` the spacing of columns and rows, and ``S_k`` from the first
    slice's position to the last one's in even steps. SliceThickness, which need not be their distance, is not used.

    Args:
        stack: sorted slices; a single one is a planar image and lies where ITK puts it, none without geometry.
    """
    if len(stack) == 1 and stack[0].count == 1:
        return _planar_affine(stack[0])
    affine = np.eye(4)
    if has_geometry(stack):
        plane = np.array(stack[0].plane)
        first, last = (np.array(frame.position) for frame in (stack[0], stack[-1]))
        affine[:3, 0], affine[:3, 1] = plane[:3] * plane[7], plane[3:6] * plane[6]
        affine[:3, 2] = (last - first) / (len(stack) - 1) if len(stack) > 1 else normal(plane)
        affine[:3, 3] = first
    return RAS_TO_LPS @ affine


def _planar_affine(frame: Frame) -> np.ndarray:
    header, affine = _itk_header(frame), np.eye(4)
    if header is not None:
        for axis in range(3):
            affine[:3, axis] = np.array(header.GetDirection(axis)) * header.GetSpacing(axis)
            affine[axis, 3] = header.GetOrigin(axis)
    return RAS_TO_LPS @ affine


def _itk_header(frame: Frame) -> Any:
    """What ITK finds in the header of a file; None when it cannot read it."""
    header = itk.GDCMImageIO.New(FileName=str(frame.path))
    try:
        header.ReadImageInformation()
    except RuntimeError:
        return None
    return header


def fault_of(stack: Sequence[Frame]) -> str:
    """Why sorted slices are no volume that can be registered, and what to do; empty when they are one."""
    cut = sum(not frame.whole for frame in stack if frame.index == 0)
    if cut:
        name = next(frame.path.name for frame in stack if not frame.whole)
        return f"{cut} of its files cannot be read, the first is {name}; the volume has gaps, copy it again"
    samples = stack[0].whole_number("SamplesPerPixel") or 1
    if samples > 1:
        return f"{samples} values per pixel (colours), expected one; convert it to grey"
    if UNREAD_SYNTAX.search(stack[0].syntax):
        return f"its pixels are compressed as {UID(stack[0].syntax).name}, which is not read; decompress it"
    if stack[0].floats:
        return "its pixels are floating-point numbers, expected whole ones; convert it to NIfTI"
    if len(stack) == 1 and stack[0].count == 1:
        return "" if _itk_header(stack[0]) is not None else UNREAD
    if not has_geometry(stack):
        return _no_geometry(stack)
    return _several_planes(stack) or _same_place(stack) or _sheared(stack) or _uneven(stack) or _scaled(stack)


def _no_geometry(stack: Sequence[Frame]) -> str:
    slices = max(len(stack), stack[0].count)
    if len(stack) < slices and stack[0].plane and stack[0].position:
        return f"one file of {slices} frames without a position of each; {CONVERT}"
    return (
        f"its {slices} slices have no geometry (ImagePositionPatient, ImageOrientationPatient, PixelSpacing), like a "
        "cine; export a volume with positions"
    )


def _several_planes(stack: Sequence[Frame]) -> str:
    """Of the frames of one file, which cannot be sorted out."""
    other = sum(not np.allclose(frame.plane, stack[0].plane, rtol=0, atol=PARALLEL) for frame in stack)
    return (
        f"{other} of the {len(stack)} frames of its file have another orientation or spacing; {CONVERT}"
        if other
        else ""
    )


def _same_place(stack: Sequence[Frame]) -> str:
    most = most_at_one_place(stack)
    if most == 1:
        return ""
    todo = CONVERT if stack[0].count > 1 else "keep one slice at each in a folder of its own"
    return f"{most} of its {len(stack)} slices lie at one position (a time series, or copies of files?); {todo}"


def _sheared(stack: Sequence[Frame]) -> str:
    """Angle between the normal and the way from the first slice to the last."""
    plane = np.array(stack[0].plane)
    way, across = np.array(stack[-1].position) - stack[0].position, normal(plane)
    along = float(way @ across)
    aside = float(np.linalg.norm(way - along * across))
    angle = float(np.rad2deg(np.arctan2(aside, along)))
    if angle <= SHEAR_DEGREES or aside <= SHEAR_PIXELS * plane[6:].min():
        return ""
    return (
        f"its slices are sheared by {angle:.1f} degrees (gantry tilt), each {aside / (len(stack) - 1):.2g} mm aside of "
        "the one before; resample it to a grid without tilt"
    )


def _uneven(stack: Sequence[Frame]) -> str:
    """Slices off the even steps from the first to the last: some are missing, or their distances differ."""
    places = np.array([frame.position for frame in stack])
    even = np.linspace(places[0], places[-1], len(places))
    step = np.linalg.norm(places[-1] - places[0]) / (len(places) - 1)
    if np.linalg.norm(places - even, axis=1).max() <= UNEVEN * step:
        return ""
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    usual = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    if not len(wide) or np.abs(gaps / usual - np.rint(gaps / usual)).max() > 2 * UNEVEN:
        return f"the distances of its slices are {gaps.min():.3g} to {gaps.max():.3g} mm, expected even; resample it"
    missing = int(np.rint(gaps[wide] / usual).sum()) - len(wide)
    before, after = stack[wide[0]], stack[wide[0] + 1]
    low, high = (float(height) for height in heights(stack)[wide[0] : wide[0] + 2])
    numbers = [frame.text("InstanceNumber") for frame in (before, after)]
    called = f"instance numbers {numbers[0]} and {numbers[1]}, " if all(numbers) and before.count == 1 else ""
    return (
        f"{missing} {'slice is' if missing == 1 else 'slices are'} missing{'' if len(wide) == 1 else ', the first'} "
        f"between {called}{low:.4g} and {high:.4g} mm along the normal; send the series again"
    )


def _scaled(stack: Sequence[Frame]) -> str:
    """Where a reader would not apply slope and intercept: it takes those of the first frame for a whole file."""
    scales = {frame.rescale for frame in stack}
    if stack[0].count > 1 and len(scales) > 1:
        return f"the values of the frames of its file are scaled differently; {CONVERT}"
    scaled = next((frame for frame in stack if frame.rescale != (1, 0)), None)
    if scaled is None:
        return ""
    header = _itk_header(scaled)
    if header is None:
        return UNREAD
    if np.allclose((header.GetRescaleSlope(), header.GetRescaleIntercept()), scaled.rescale):
        return ""
    return "its kind of image has no slope and intercept, and its files have; convert it to NIfTI"


def notes_of(stack: Sequence[Frame]) -> tuple[str, ...]:
    """What positions cannot show: a first or a last slice that may be missing.

    Args:
        stack: all single-frame slices of a series.
    """
    numbers = sorted({number for frame in stack if (number := frame.whole_number("InstanceNumber")) is not None})
    found = []
    expected = stack[0].whole_number("ImagesInAcquisition") or 0
    if expected > len(stack) and len({frame.text("AcquisitionNumber") for frame in stack}) == 1:
        found.append(f"{len(stack)} slices of the {expected} that its acquisition has; some may be missing at its ends")
    elif len(numbers) == len(stack) and (numbers[0] > 1 or numbers[-1] - numbers[0] >= len(stack)):
        found.append(
            f"{len(stack)} slices with instance numbers {numbers[0]} to {numbers[-1]}; some may be missing at its ends"
        )
    return tuple(found)
