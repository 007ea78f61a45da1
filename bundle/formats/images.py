"""Images in every format: one table gives the suffixes of each, what reads and writes it, and its voxel types."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bundle.formats.dicom_volume import is_dicom_image, read_volume
from bundle.formats.itk_files import ITK_TYPES, checked_header, itk_header, read_itk, write_itk
from bundle.formats.nibabel_files import HALVES, is_nifti, opened_nifti, read_half, read_mgh, read_nifti, write_nifti
from bundle.formats.pictures import read_array, read_picture, write_picture
from bundle.formats.voxels import (
    VOXEL_TYPES,
    Found,
    as_stored,
    channels_first,
    image_precision,
    kept_type,
    smallest_type,
    whole_numbers,
)
from bundle.system.contents import is_held, mistaken_for, not_an_image, unread_format
from bundle.system.errors import DataWarning, brief
from bundle.system.files import moved_into_place, silent_libraries
from bundle.system.limits import Refused


@dataclass(frozen=True)
class ImageFormat:
    """A format of images.

    Attributes:
        suffixes: suffixes of its files.
        read: file and kind (``image``, ``label``, ``mask``) -> what it holds.
        write: voxels ``(X, Y, Z[, channels])``, affine, file; None if the format is only read.
        types: voxel types that it can be written with.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, str], Found]
    write: Callable[[np.ndarray, np.ndarray, Path], None] | None = None
    types: tuple[str, ...] = ()


FORMATS = (
    ImageFormat((".nii", ".nii.gz"), read_nifti, write_nifti, VOXEL_TYPES),
    ImageFormat((".nrrd", ".mha", ".seg.nrrd"), read_itk, write_itk, ITK_TYPES),
    ImageFormat((".nhdr", ".mhd", ".dcm"), read_itk),
    ImageFormat(HALVES, read_half),
    ImageFormat((".mgz", ".mgh", ".mgh.gz"), read_mgh),
    ImageFormat((".npy",), read_array),
    ImageFormat((".png",), read_picture, write_picture, ("uint8", "uint16")),
    ImageFormat((".jpg", ".jpeg", ".bmp"), read_picture, write_picture, ("uint8",)),
    ImageFormat((".tif", ".tiff"), read_picture, write_picture, ("uint8", "uint16", "int32", "float32")),
)
IMAGE_SUFFIXES = tuple(suffix for one in FORMATS for suffix in one.suffixes)
PICTURE_SUFFIXES = tuple(suffix for one in FORMATS if one.read is read_picture for suffix in one.suffixes)
WRITTEN_SUFFIXES = tuple(suffix for one in FORMATS if one.write for suffix in one.suffixes)
SINGLE_FILES = f"{', '.join(IMAGE_SUFFIXES)}, and folders of DICOM"


def _read_other(path: Path, kind: str) -> Found:
    """Read a file whose name says nothing, if it begins like NIfTI or ITK recognises it."""
    if path.name.lower().endswith(".npz"):
        return read_array(path, kind)
    if is_nifti(path):
        return read_nifti(path, kind)
    try:
        with silent_libraries():
            itk_header(path)
    except Refused as error:
        what = unread_format(path) or "not a format of images that is read"
        raise Refused(mistaken_for(path) or f"{what}; read are {SINGLE_FILES}") from error
    return read_itk(path, kind)


def _format_of(path: Path) -> ImageFormat:
    name = path.name.lower()
    return next((one for one in FORMATS if name.endswith(one.suffixes)), ImageFormat((), _read_other))


def read_image(path: str | Path, kind: str = "image") -> Found:
    """Read an image, a label or a mask as a volume, channel first.

    A file with two axes (a picture, a 2-D NIfTI) becomes one slice: as in ITK, the first axis counts columns and the
    second rows. A picture has no position in space, so its pixels are 1 mm apart and its affine is the identity.

    Args:
        path: the file, or the folder of a DICOM series.
        kind: ``"image"``, or ``"label"`` or ``"mask"``, whose values are whole numbers (``as_label``).

    Returns:
        ``(channels, X, Y, Z)``, the type in which they can be written again as ``stored``, and Pillow's ``mode`` of a
        picture in ``meta``.

    Raises:
        ValueError: naming the file in one line, when it cannot be read, is larger than the limit, or is no label.

    Warns:
        DataWarning: about a header that other tools read differently.
    """
    path = Path(path)
    with _named(path):
        if is_dicom_image(path):
            found = read_volume(path, kind)
        else:
            found = as_volume(_format_of(path).read(path, kind), kind, str(path))
        return found if kind == "image" else as_label(found, kind, str(path))


def header_shape(path: str | Path) -> tuple[int, ...]:
    """Check what the header of a file tells without its voxels: that they are numbers, and all there.

    Args:
        path: the file; only NIfTI, NRRD and MetaImage are looked at.

    Returns:
        ``(channels, X, Y, Z)`` of a NIfTI file; empty for all others.

    Raises:
        ValueError: as in ``read_image``.
    """
    path = Path(path)
    reads = _format_of(path).read
    with _named(path):
        if reads is read_nifti:
            with opened_nifti(path) as (voxels, _):
                shape, needed = voxels.shape, voxels.offset + int(np.prod(voxels.shape)) * voxels.dtype.itemsize
            if not is_held(path, needed):
                raise ValueError(f"its voxels end at byte {needed}, and the file before")
            return channels_first(np.broadcast_to(np.uint8(0), (*shape, 1)[: max(3, len(shape))])).shape
        if reads is read_itk and not is_dicom_image(path):
            with silent_libraries():
                checked_header(path)
    return ()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that a reader fails at, in one line."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # every reader fails in its own way: OSError, EOFError, zlib.error, RuntimeError ...
        reason = not_an_image(path) or f"damaged or not an image ({brief(error)})"
        raise ValueError(f"{path}: cannot be read, {reason}") from error


def as_volume(found: Found, kind: str, name: str) -> Found:
    """Make a volume of what a reader found, or of what a user has in memory.

    Args:
        found: the voxels.
        kind: as in ``read_image``.
        name: name of the image in the warning.

    Raises:
        Refused: when no type holds its whole numbers.

    Warns:
        DataWarning: about a header that other tools read differently.
    """
    if found.note:
        warnings.warn(f"{name}: {found.note}", DataWarning, stacklevel=2)
    channels = found.channels if found.channels.ndim != 3 else found.channels[..., None]
    numbers = np.ascontiguousarray(channels, dtype=image_precision(channels) if kind == "image" else np.float64)
    ends = (channels.min(), channels.max()) if found.stored.kind in "iub" and channels.size else (0, 0)
    # What a slope and an intercept make of whole numbers may need double precision.
    own = found.stored if (kind, found.stored.kind) != ("image", "f") else np.promote_types(found.stored, numbers.dtype)
    return replace(found, channels=numbers, stored=kept_type(own, *ends), note="")


def as_label(label: Found, kind: str, name: str) -> Found:
    """A label or mask with its values as whole numbers, and the type that holds them.

    Args:
        label: what a reader found.
        kind: ``"label"`` or ``"mask"``.
        name: its name in the warning.

    Raises:
        Refused: when they are not whole, or one of several channels holds more than one structure.

    Warns:
        DataWarning: about negative values: programs that call the background -1 call the first structure 0.
    """
    values = whole_numbers(label.channels, kind)
    if (lowest := values.min(initial=0)) < 0:
        note = f"the {kind} has negative values such as {lowest:.0f}, which count as structures; 0 is the background"
        warnings.warn(f"{name}: {note}", DataWarning, stacklevel=3)
    for number, channel in enumerate(values if len(values) > 1 else ()):
        low, high = channel.min(initial=np.inf, where=channel != 0), channel.max(initial=-np.inf, where=channel != 0)
        if low < high:
            raise Refused(
                f"channel {number} has the values {low:.0f} to {high:.0f}; a label with channels has one structure in "
                "each, 0 and one other number: save it as an integer map of one channel"
            )
    stored = label.stored
    if stored.kind not in "iu" or stored.name not in VOXEL_TYPES:
        stored = smallest_type(values.min(initial=0), values.max(initial=0))
    return replace(label, channels=values, stored=stored)


def check_writable(path: str | Path) -> None:
    """Refuse a file name in whose format images are not written.

    Raises:
        ValueError: naming the formats that are.
    """
    if _format_of(Path(path)).write is None:
        formats = ", ".join(WRITTEN_SUFFIXES)
        raise ValueError(f"{path}: not a format that images are written in; supported are {formats}")


def written_type(path: str | Path, stored: np.dtype, values: np.ndarray) -> np.dtype:
    """Type in which an image is written: its own where the format has it, else the smallest that holds the values.

    Args:
        path: its suffix decides the format.
        stored: type that the image has.
        values: values of the image, or of the image they come from.

    Raises:
        ValueError: when the format is not written, or cannot hold the values.
    """
    check_writable(path)
    try:
        return kept_type(stored, values.min(initial=0), values.max(initial=0), _format_of(Path(path)).types)
    except Refused as error:
        raise ValueError(f"{path}: {error}; or write .nii.gz") from error


def save_image(channels: np.ndarray, affine: np.ndarray, dtype: np.dtype, path: str | Path) -> None:
    """Write an image; the file appears complete or not at all.

    Args:
        channels: ``(channels, X, Y, Z)``; several become the last axis of the file.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS; pictures have none.
        dtype: type of the voxels in the file, where the format has it (``written_type``).
        path: its suffix decides the format.

    Raises:
        ValueError: for a format that is not supported or cannot hold the image.
    """
    path = Path(path)
    voxels = channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1)
    voxels = as_stored(voxels, written_type(path, dtype, voxels))
    write = _format_of(path).write
    try:
        with moved_into_place(path) as partial:
            if write is not None:
                write(voxels, affine, partial)
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
