"""From a stack of slices to the grid of its volume, and the reasons why a stack is not a volume."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

import numpy as np
from pydicom.uid import UID

from bundle.dicom.files import not_read
from bundle.dicom.frames import Frame
from bundle.dicom.pixels import itk_header, unread
from bundle.dicom.steps import CONVERT, misplaced
from bundle.dicom.tiles import tiling_of
from bundle.dicom.volumes import has_geometry, normal
from bundle.geometry import RAS_TO_LPS

DIRECTIONS = 0.1
"""How far the directions of a header may be from unit length and right angles to be called rounded."""
GEOMETRY = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
"""Attributes that place a slice, and how many numbers each has."""
UNREAD = "its headers cannot be read by ITK; copy it again, or convert it to NIfTI"
UNREAD_SYNTAX = re.compile(r"^1\.2\.840\.10008\.1\.2\.4\.[12]\d\d")
"""Video, JPEG XL and High-Throughput JPEG 2000."""


def affine_of(stack: Sequence[Frame]) -> np.ndarray:
    """Voxel-to-world affine ``(4, 4)``, mm, RAS, of sorted slices.

    Column ``c`` and row ``r`` of slice ``k`` lie at ``S_k + x c dx + y r dy`` (DICOM PS3.3, C.7.6.2.1.1) with ``x, y``
    the two halves of ImageOrientationPatient, ``dx, dy`` the spacing of columns and rows, and ``S_k`` from the first
    slice's position to the last one's in even steps. SliceThickness, which need not be their distance, is not used.

    Args:
        stack: sorted slices; a single one is a planar image and lies where ITK puts it. Without geometry, the affine
            is the identity in LPS.
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
    header, affine = None if unread(frame.values) or not frame.times else itk_header(frame.path), np.eye(4)
    if header is not None:
        for axis in range(3):
            affine[:3, axis] = np.array(header.GetDirection(axis)) * header.GetSpacing(axis)
            affine[axis, 3] = header.GetOrigin(axis)
    return RAS_TO_LPS @ affine


def fault_of(stack: Sequence[Frame]) -> str:
    """Why sorted slices are not a volume that can be registered, and what to do; empty if they are one."""
    cut = sum(not frame.times for frame in stack if frame.index == 0)
    if cut:
        return not_read(cut, next(frame.path.name for frame in stack if not frame.times))
    tiling = tiling_of(stack[0])
    if tiling:
        return tiling
    samples = stack[0].whole_number("SamplesPerPixel") or 1
    if samples > 1:
        cine = _no_geometry(stack) if stack[0].count > 1 and not has_geometry(stack) else ""
        return cine or f"{samples} values per pixel (colours), expected one; convert it to grey"
    pixels = next(filter(None, (unread(frame.values) for frame in stack)), "")
    if pixels:
        return pixels
    if UNREAD_SYNTAX.search(stack[0].syntax):
        return f"its pixels are compressed as {UID(stack[0].syntax).name}, which is not read; decompress it"
    if stack[0].floats:
        return "its pixels are floating-point numbers, expected whole ones; convert it to NIfTI"
    more = max(stack, key=lambda frame: frame.times)
    if more.times > 1:
        return (
            f"its file {more.path.name} holds {more.times} times the pixels that its header declares, as a volume in a "
            "form of its maker does; convert it by a program of its maker"
        )
    if len(stack) == 1 and stack[0].count == 1:
        return "" if itk_header(stack[0].path) is not None else UNREAD
    if not has_geometry(stack) or len(stack) == 1:
        return _no_geometry(stack)
    return _no_plane(stack) or _a_part(stack) or misplaced(stack) or _scaled(stack)


def lacks_slices(stack: Sequence[Frame], unplaced: Sequence[Frame]) -> str:
    """Report slices beside a volume that look like its own but have no place, so that it would be shorter in silence.

    Args:
        stack: slices of the volume.
        unplaced: single slices without a place, of any series.
    """
    kinds = {_kind(frame) for frame in stack}
    lost = [frame for frame in unplaced if _kind(frame) in kinds]
    if len(stack) < 2 or not lost or not has_geometry(stack):
        return ""
    slices = f"{len(lost)} of {len(stack) + len(lost)} slices"
    return f"{' and '.join(_lacking(lost))} of {slices} is absent or invalid; correct the headers"


def _kind(frame: Frame) -> tuple[Hashable, ...]:
    """What the slices of a volume share, unlike a picture of it that a scanner adds to its series."""
    return frame.shape, *(frame.text(keyword) for keyword in ("SeriesInstanceUID", "SOPClassUID", "ImageType"))


def _no_geometry(stack: Sequence[Frame]) -> str:
    slices = max(len(stack), stack[0].count)
    if len(stack) < slices and stack[0].plane and stack[0].position:
        return f"one file of {slices} frames without a position of each; {CONVERT}"
    lacking = ", ".join(_lacking(stack))
    if lacking == "PixelSpacing":
        return f"its {slices} slices have no PixelSpacing; correct its headers"
    like = "a cine" + ", or the pictures beside a volume in a form of its maker" * (stack[0].text("Modality") == "US")
    return f"its {slices} slices have no geometry ({lacking}), like {like}; export a volume with positions"


def _lacking(stack: Sequence[Frame]) -> list[str]:
    """Attributes that would place slices and that not all of them have."""
    return [name for name, count in GEOMETRY if not all(frame.numbers(name, count) for frame in stack)]


def _no_plane(stack: Sequence[Frame]) -> str:
    """Report invalid directions and spacings."""
    if any(frame.askew > DIRECTIONS for frame in stack):
        return "its ImageOrientationPatient is no two directions of length 1 at right angles; correct its headers"
    down, across = min(frame.plane[6:] for frame in stack)
    if min(down, across) <= 0:
        return f"its PixelSpacing is {down:g} x {across:g} mm, expected more than 0; correct its headers"
    return ""


def _a_part(stack: Sequence[Frame]) -> str:
    """Report a file that is one of several parts of a multi-frame image, each of which looks like a whole volume."""
    parts = stack[0].whole_number("InConcatenationTotalNumber") or 1
    return f"one of {parts} files that are one image together (a concatenation); {CONVERT}" if parts > 1 else ""


def _scaled(stack: Sequence[Frame]) -> str:
    """Report slopes and intercepts that a reader would not apply: it uses those of the first frame for a whole file."""
    scales = {frame.rescale for frame in stack}
    if stack[0].count > 1 and len(scales) > 1:
        return f"the values of the frames of its file are scaled differently; {CONVERT}"
    scaled = next((frame for frame in stack if frame.rescale != (1, 0)), None)
    if scaled is None:
        return ""
    header = itk_header(scaled.path, scaled.rescale)
    if header is None:  # an intercept alone may be what ITK refuses
        return "" if itk_header(scaled.path, (scaled.rescale[0], 0.0)) is not None else UNREAD
    if (header.GetRescaleSlope(), header.GetRescaleIntercept()) == (1, 0):
        return "its kind of image has no slope and intercept, and its files have; convert it to NIfTI"
    return ""
