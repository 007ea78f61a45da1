"""Images to files, in the type and format of the image they come from."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from monai.data import ITKWriter
from PIL import Image

from bundle.formats.headers import NIFTI_SUFFIXES, PICTURE_SUFFIXES, itk_header
from bundle.system.files import moved_into_place

ITK_SUFFIXES = (".nrrd", ".mha")
PICTURE_TYPES = {"1": np.bool_, "L": np.uint8, "P": np.uint8, "I": np.int32, "F": np.float32}
"""Types of the pixels by Pillow's mode; those of the other grey modes, I;16 and its byte orders, are 16 bits."""
JPEG_QUALITY = 95


def stored_type(path: str | Path) -> np.dtype:
    """Type of the voxels in a file: what its numbers are, which is not an integer where the header scales them.

    Args:
        path: of an image.
    """
    name = str(path).lower()
    if name.endswith(NIFTI_SUFFIXES):
        image = nib.load(path)
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
        return np.dtype(np.float32) if scaled else image.get_data_dtype().newbyteorder("=")
    if name.endswith(PICTURE_SUFFIXES):
        with Image.open(path) as picture:
            return np.dtype(PICTURE_TYPES.get(picture.mode, np.uint16 if picture.mode.startswith("I;16") else np.uint8))
    if name.endswith(".npy"):
        return np.load(path, mmap_mode="r").dtype
    kind = itk.ImageIOBase.GetComponentTypeAsString(itk_header(path).GetComponentType())
    names = {"float": "f4", "double": "f8", "unsigned_char": "u1", "char": "i1", "unsigned_short": "u2", "short": "i2"}
    return np.dtype(names.get(kind, "u4" if kind.startswith("unsigned") else "i4"))


def as_stored(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array in another type; for whole numbers it is rounded, and clipped to what they can hold."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        array = np.rint(array.astype(np.float64)).clip(limits.min, limits.max)
    return array.astype(dtype)


def nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """NIfTI image whose affine is stored as sform and, where it has no shear, as qform too.

    Args:
        array: voxels, spatial axes first.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    return image


def check_writable(path: str | Path) -> None:
    """Refuse the name of an image that could not be written.

    Raises:
        ValueError: naming the formats that can.
    """
    formats = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *PICTURE_SUFFIXES)
    if not str(path).lower().endswith(formats):
        raise ValueError(f"{path}: not a format that images are written in; supported are {', '.join(formats)}")


def save_image(channels: np.ndarray, affine: np.ndarray, dtype: np.dtype, path: str | Path) -> None:
    """Write an image; the file appears complete or not at all.

    Args:
        channels: ``(channels, X, Y, Z)``; several become the last axis of the file.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS; pictures have none.
        dtype: type of the voxels in the file.
        path: its suffix decides the format.

    Raises:
        ValueError: for a format that is not supported or cannot hold the image.
    """
    path, name = Path(path), str(path).lower()
    check_writable(path)
    voxels = as_stored(channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1), dtype)
    with moved_into_place(path) as partial:
        if name.endswith(NIFTI_SUFFIXES):
            nib.save(nifti(voxels, affine), partial)
        elif name.endswith(PICTURE_SUFFIXES):
            if voxels.ndim != 3 or voxels.shape[2] != 1:
                shape = " x ".join(map(str, voxels.shape))
                raise ValueError(f"{path}: a picture holds one slice, the image is {shape}; write it as .nii.gz")
            Image.fromarray(voxels[..., 0].T).save(partial, quality=JPEG_QUALITY)
        elif voxels.ndim != 3:
            raise ValueError(f"{path}: {len(channels)} volumes are written as .nii.gz")
        else:
            writer = ITKWriter(output_dtype=dtype)
            writer.set_data_array(voxels, channel_dim=None)
            writer.set_metadata({"affine": affine}, resample=False)
            writer.write(str(partial))
