"""Voxels as a reader finds them, and one rule for their type: their own, or the smallest that holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bundle.system.limits import Refused

ROUNDED = 1e-3
"""How far the numbers of a label may be from whole ones: the slope in a header adds rounding errors."""
EXACT = 2**53
"""Double precision holds every whole number below this one."""
SINGLE = 2**24
"""The same for single precision."""
LOST = 1e-3
"""How much of the step from one voxel to the next single precision may round away."""
PLANES = 64
"""How many planes of an image show how large its steps are."""
VOXEL_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Voxel types that ITK, 3D Slicer and ANTs read in NIfTI."""
COLOURS = "colours, expected one number each; save them as grey values, a label as whole numbers"
COMPLEX = "complex numbers, expected one real number each; save the magnitude"
FEW, SAMPLE = 12, 4096
"""Most values of an image that looks like a label, and how many voxels show that it has more."""
SEGMENT_NAMES = "segment_names"
"""Key of what is kept of a label: names of its segments by value or channel, as JSON."""
SEGMENT = re.compile(r"Segment(\d+)_ID")
"""How a header of 3D Slicer says that it describes a segment."""
CHOSEN = ("uint8", "int16", "uint16", "int32", "uint32")
"""Whole numbers from small to large; ITK in Python does not read ``int8``."""


@dataclass(frozen=True)
class Found:
    """An image as its file has it.

    Attributes:
        channels: ``(channels, X, Y[, Z])``, values after the slope of the header.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
        stored: type of the numbers in the file; a float where the header scales them.
        note: a line about a header that other tools read differently, or an empty one.
        meta: what else is worth keeping.
        segments: whether it is a segmentation of 3D Slicer, which saves the part of its grid that holds something.
    """

    channels: np.ndarray
    affine: np.ndarray
    stored: np.dtype
    note: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    segments: bool = False


def check_numbers(dtype: np.dtype) -> None:
    """Refuse voxels that are not one real number each.

    Raises:
        Refused: naming what they are.
    """
    if dtype.kind not in "biuf":
        known = {"c": COMPLEX, "V": COLOURS if dtype.names else "no known type, expected numbers"}
        raise Refused(f"voxels of {known.get(dtype.kind, f'the type {dtype}, expected numbers')}")


def channels_first(array: np.ndarray) -> np.ndarray:
    """Voxels ``(X, Y, Z, 1, ..., channels, 1, ...)`` of a file as ``(channels, X, Y, Z)``; 3 axes are one channel.

    An array of more axes keeps them, for the checks to report.
    """
    single = tuple(axis for axis in range(3, array.ndim) if array.shape[axis] == 1)
    array = array.squeeze(single)
    return array[None] if array.ndim <= 3 else np.moveaxis(array, -1, 0)


def smallest_type(low: float, high: float, types: Sequence[str] = VOXEL_TYPES) -> np.dtype:
    """The smallest of some types that holds whole numbers from ``low`` to ``high``, and 0.

    Raises:
        Refused: when none does.
    """
    low, high = min(low, 0), max(high, 0)
    for name in CHOSEN:
        if name in types and np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    if "float64" in types and max(-low, high) <= EXACT:
        return np.dtype(np.float64)
    held = ", ".join(types)
    raise Refused(f"whole numbers from {int(low)} to {int(high)}, which no type holds exactly ({held}); rescale them")


def kept_type(stored: np.dtype, low: float, high: float, types: Sequence[str] = VOXEL_TYPES) -> np.dtype:
    """The type that voxels get: their own if it is one of ``types``, else the smallest that holds them.

    Args:
        stored: their own; ``int64``, ``uint64``, ``float16`` and ``bool`` are never among ``types``.
        low: the lowest of their values.
        high: the highest.
        types: names to choose from.

    Raises:
        Refused: when none holds them.
    """
    if stored.name in types:
        return stored
    if stored.kind in "iub":
        return smallest_type(low, high, types)
    floats = [np.dtype(name) for name in types if name.startswith("float")]
    if floats:
        return next((dtype for dtype in floats if dtype.itemsize >= stored.itemsize), floats[-1])
    raise Refused(f"fractions ({stored}), expected whole numbers of the types {', '.join(types)}")


def image_precision(channels: np.ndarray) -> np.dtype[Any]:
    """The type in which intensities are worked on: single precision, or double where that would round them away.

    Intensities from 1e9 to 1e9 + 100 are sound, and so is one of 1e300; single precision has steps of 64 there, and
    infinity.

    Args:
        channels: ``(channels, X, Y[, Z])``, of any type.
    """
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    if not channels.size or np.can_cast(channels.dtype, single):
        return single
    planes = channels[:, :: max(1, channels.shape[1] // PLANES)].astype(double)
    with np.errstate(over="ignore", invalid="ignore"):
        if (np.isinf(channels.astype(single)) & np.isfinite(channels)).any():
            return double
        rounding = np.abs(planes - planes.astype(single))[..., 1:, :]
        steps = np.abs(np.diff(planes, axis=-2))
    changed = np.isfinite(steps) & (steps > 0)
    return double if changed.any() and np.median(rounding[changed] / steps[changed]) > LOST else single


def as_stored(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array in another type; for whole numbers it is rounded, and clipped to what they can hold."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        array = np.rint(array.astype(np.float64)).clip(limits.min, limits.max)
    return array.astype(dtype)


def whole_numbers(values: np.ndarray, kind: str) -> np.ndarray:
    """The values of a label or mask as whole numbers.

    Args:
        values: as they were read, with the slope of the header applied.
        kind: what messages call them.

    Returns:
        The same shape, in single precision where it holds all of them, else in double precision.

    Raises:
        Refused: for fractions, NaN, infinite values, and those beyond ``EXACT``.
    """
    if not np.isfinite(values).all():
        raise Refused(f"the {kind} has NaN or infinite values; {kind}s are whole numbers")
    largest = max(abs(values.min(initial=0)), abs(values.max(initial=0)))
    if largest >= EXACT:
        raise Refused(f"the {kind} has values of {largest:.17g}, expected less than 2^53; renumber its structures")
    rounded = np.rint(values).astype(np.float64 if largest > SINGLE else np.float32)
    if found := fractions(values, kind, ROUNDED):
        raise Refused(found)
    return rounded


def fractions(values: np.ndarray, kind: str, rounded: float = 0.0) -> str:
    """The line about values of a label or mask that are not whole numbers; empty if all are.

    Args:
        values: finite numbers.
        kind: what messages call them.
        rounded: how far from a whole number still counts as one.
    """
    apart = np.abs(values - np.rint(values)) > rounded
    if not apart.any():
        return ""
    example = values[apart].flat[0]
    return f"the {kind} has fractions (interpolated or scaled?) such as {example:.7g}; {kind}s are whole numbers"


def few_values(image: np.ndarray) -> list[float]:
    """Values of an image that looks like a label: a few whole numbers; none if it does not."""
    values = image.ravel()
    found = np.unique(values[:: max(1, values.size // SAMPLE)])
    if len(found) <= FEW:  # the values of most images are many, which a few voxels show
        found = np.union1d(found, values[~np.isin(values, found)])
    return found.tolist() if len(found) <= FEW and (found == np.rint(found)).all() else []


def segment_numbers(meta: Any) -> list[int]:
    """Numbers of the segments that a header of 3D Slicer describes; some may be missing, where a program deleted them.

    Args:
        meta: ITK's dictionary of the header.
    """
    return sorted(int(found[1]) for key in meta.GetKeys() if (found := SEGMENT.fullmatch(key)))


def segments_of(layers: np.ndarray, meta: Any) -> tuple[np.ndarray, dict[str, str]]:
    """What a segmentation of 3D Slicer holds.

    Args:
        layers: ``(layers, X, Y, Z)``; segments that overlap are in several layers.
        meta: as in :func:`segment_numbers`.

    Returns:
        A channel per segment if there are several layers, else the layer as it is; and what is kept of the header: the
        name of every channel, or of every value, by ``SEGMENT_NAMES``.

    Raises:
        Refused: when a segment is in a layer that is not there.
    """
    segments: list[np.ndarray] = []
    names: dict[int, str] = {}
    for number in segment_numbers(meta):
        # Before 3D Slicer 4.11 every segment had a layer of its own, and no file said so.
        layer, value, name = (
            meta[key] if meta.HasKey(key := f"Segment{number}_{part}") else default
            for part, default in (("Layer", number), ("LabelValue", 1), ("Name", ""))
        )
        try:
            names[int(float(value)) if len(layers) == 1 else len(segments)] = str(name)
            if len(layers) > 1:
                segments.append(layers[int(layer)] == float(value))
        except (ValueError, IndexError) as error:
            place = f"value {value} of layer {layer}"
            raise Refused(f"its segment {number} is {place}, and it has {len(layers)} layers; save it again") from error
    kept = {SEGMENT_NAMES: json.dumps(names)}
    return np.stack(segments).astype(float) if segments else layers, kept
