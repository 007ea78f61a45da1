"""Headers of images, read alone: what cannot be read, or asks for too much, is refused before a voxel is."""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
from PIL import Image

from bundle.system.limits import Refused, check_declared, regular_file, size

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DETACHED_SUFFIXES = (".nhdr", ".mhd", ".hdr")
"""Headers whose voxels are in another file."""

LARGEST_EXTENSION = 2**26
"""Bytes between the header and the voxels of a NIfTI file."""


def check_image(path: str | Path) -> None:
    """Refuse an image that asks for more than it can hold, or than is read; only its header is read.

    Args:
        path: of the file.

    Raises:
        Refused: naming the size that it declares and the limit; for voxels that are no numbers.
        Exception: when the header cannot be read; of its own kind for every reader.
    """
    path, name = Path(path), str(path).lower()
    regular_file(path)
    if name.endswith(NIFTI_SUFFIXES):
        _check_nifti(path)
    elif name.endswith(PICTURE_SUFFIXES):
        _check_picture(path)
    elif name.endswith(".npy"):
        _check_array(path)
    elif name.endswith(".npz"):
        raise Refused("an archive of arrays, expected one array (.npy)")
    else:
        header = itk_header(path)
        if header.GetNameOfClass() == "GDCMImageIO" and itk_shape(header)[2:] > (1,):
            raise Refused("a DICOM file of several frames; name its folder instead, so that their places are read")
        shape = (*itk_shape(header), header.GetNumberOfComponents())
        check_declared(shape, header.GetComponentSize(), None if name.endswith(DETACHED_SUFFIXES) else path)


def itk_header(path: str | Path) -> Any:
    """ITK's reader of an image, which has read the header; None for a file that no reader knows.

    Raises:
        Refused: when no reader knows the file.
        RuntimeError: when the header cannot be read.
    """
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise Refused("cannot be read, damaged or not an image")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header


def itk_shape(header: Any) -> tuple[int, ...]:
    """Voxels along each axis that such a header declares."""
    return tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))


def _check_nifti(path: Path) -> None:
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        start = file.read(540)
        second = 540 in (int.from_bytes(start[:4], order) for order in ("little", "big"))
        kind = nib.Nifti2Header if second else nib.Nifti1Header
        if len(start) < kind.sizeof_hdr:
            raise Refused("cannot be read, damaged or not an image (shorter than the header of NIfTI)")
        header = kind(start[: kind.sizeof_hdr], check=False)
        shape, voxel = header.get_data_shape(), header.get_data_dtype()
        if voxel.kind not in "biuf":
            raise Refused(f"voxels of the type {voxel}, expected one number each")
        if not shape or min(shape) < 1:
            raise Refused(f"its header declares {size(shape) or 'no'} voxels, expected 1 along each axis at least")
        check_declared(shape, voxel.itemsize, path)
        spacing = header["pixdim"][1:4]
        if header["sform_code"] == 0 and (spacing < 0).any():
            found = size([f"{length:g}" for length in spacing.tolist()])
            raise Refused(f"a spacing of {found}, expected more than 0; correct the header")
        offset = float(header["vox_offset"])
        if not offset <= LARGEST_EXTENSION:
            raise Refused(f"its voxels start at byte {offset:.0f}, expected {LARGEST_EXTENSION} at most; damaged")
        file.seek(kind.sizeof_hdr)
        _check_extensions(file, int(offset), ">" if header.endianness == ">" else "<")


def _check_extensions(file: Any, offset: int, order: str) -> None:
    """Extensions of a NIfTI header, whose lengths are believed when they are read, lie before the voxels."""
    place = file.tell() + 4
    extended = file.read(4)[:1] not in (b"", b"\0")
    while extended and place < offset:
        file.seek(place)
        word = file.read(4)
        length = int(np.frombuffer(word.ljust(4, b"\0"), f"{order}i4")[0])
        if length < 8 or place + length > offset:
            raise Refused(f"an extension of {length} bytes in its header, which ends at byte {offset}; damaged")
        place += length


def _check_picture(path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                check_declared(picture.size, 1, None)
    except Image.DecompressionBombError as error:
        declared = re.search(r"\d+", str(error))
        raise Refused(
            f"its header declares {declared[0] if declared else 'too many'} pixels, more than the "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0)} of a picture that are read; crop it"
        ) from error


def _check_array(path: Path) -> None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise Refused("Python objects, which could run code when read; expected an array of numbers") from error
        raise
    if not isinstance(array, np.ndarray):
        raise Refused("an archive of arrays, expected one array")
    if array.dtype.kind not in "biuf":
        raise Refused(f"values of the type {array.dtype}, expected numbers")
    check_declared(array.shape, array.dtype.itemsize, None)
