"""What a reader finds in a file: an array, and where it is; the files of NumPy, which are arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bundle.system.limits import Refused, check_declared, regular_file


@dataclass(frozen=True)
class Found:
    """An image as its file has it.

    Attributes:
        channels: ``(channels, X, Y[, Z])``, values after the slope of the header.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
        stored: type of the numbers in the file: what they are, which are no whole numbers where the header scales them.
        note: a line about a header that other tools read otherwise, or nothing.
        meta: what else is worth keeping.
    """

    channels: np.ndarray
    affine: np.ndarray
    stored: np.dtype
    note: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)


def channels_first(array: np.ndarray) -> np.ndarray:
    """Voxels ``(X, Y, Z, 1, ..., channels)`` of a file as ``(channels, X, Y, Z)``; one channel where there are 3 axes.

    An array of more axes keeps them, for the checks to name.
    """
    if array.ndim <= 3:
        return array[None]
    between = tuple(axis for axis in range(3, array.ndim - 1) if array.shape[axis] == 1)
    return np.moveaxis(array.squeeze(between), -1, 0)


def read_array(path: Path, kind: str) -> Found:
    """Read one array of numbers (``.npy``), whose affine is the identity.

    Raises:
        Refused: for Python objects, which could run code when read, and anything else that is no such array.
    """
    try:
        array = np.load(regular_file(path), mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise Refused("Python objects, which could run code when read; expected an array of numbers") from error
        raise
    if not isinstance(array, np.ndarray):
        raise Refused("an archive of arrays, expected one array (.npy)")
    if array.dtype.kind not in "biuf":
        raise Refused(f"values of the type {array.dtype}, expected numbers")
    check_declared(array.shape, array.dtype.itemsize, None)
    return Found(channels_first(np.array(array)), np.eye(4), array.dtype.newbyteorder("="))
