"""Pictures: PNG, JPEG, TIFF, BMP. They have no position in space, and their pixels are 1 mm apart."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.formats.arrays import Found
from bundle.system.limits import Refused, check_declared, regular_file, size

GREY_MODES = ("1", "L", "F", "I", "I;16", "I;16B", "I;16L")  # of Pillow: one value per pixel
TYPES = {"1": np.bool_, "L": np.uint8, "P": np.uint8, "I": np.int32, "F": np.float32}
"""Types of the pixels by Pillow's mode; those of the other grey modes, I;16 and its byte orders, are 16 bits."""
JPEG_QUALITY = 95
LABEL_FORMATS = "a format that keeps values, such as PNG, or NIfTI"


def read_picture(path: Path, kind: str) -> Found:
    """Read a picture: the first axis counts columns, the second rows, as in ITK; the affine is the identity.

    Colours of an image become grey. Of a label or mask the indices of a palette are the values; colours are none, and
    neither is what JPEG has compressed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(regular_file(path)) as picture:
                check_declared(picture.size, 1, None)
                one = _grey(picture) if kind == "image" else _values(picture, kind)
                stored = np.dtype(TYPES.get(one.mode, np.uint16 if one.mode.startswith("I;16") else np.uint8))
                return Found(np.asarray(one).T[None], np.eye(4), stored, meta={"mode": one.mode})
    except Image.DecompressionBombError as error:
        declared = re.search(r"\d+", str(error))
        raise Refused(
            f"its header declares {declared[0] if declared else 'too many'} pixels, more than the "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0)} of a picture that are read; crop it"
        ) from error


def _one(picture: Image.Image) -> None:
    count = getattr(picture, "n_frames", 1)
    if count > 1:
        raise ValueError(f"the file holds {count} pictures, expected one; save each in a file of its own")


def _grey(picture: Image.Image) -> Image.Image:
    """A picture with one value per pixel; colours, those of a palette too, become grey."""
    _one(picture)
    return picture if picture.mode in GREY_MODES else picture.convert("L")


def _values(picture: Image.Image, kind: str) -> Image.Image:
    """A picture whose pixels are the values of a label."""
    _one(picture)
    if picture.format == "JPEG":
        raise Refused(f"a {kind} in JPEG, whose compression changes values; save it in {LABEL_FORMATS}")
    if picture.mode == "P" or picture.mode in GREY_MODES:
        return picture
    grey, *others = picture.convert("RGB").split()
    if any(other.tobytes() != grey.tobytes() for other in others):
        raise Refused(f"a {kind} in colours, expected one number per pixel; save it as grey values or with a palette")
    return grey


def write_picture(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write ``(X, Y, 1)``; a picture keeps no position."""
    if voxels.ndim != 3 or voxels.shape[2] != 1:
        raise Refused(f"a picture holds one slice, the image is {size(voxels.shape)}; write it as .nii.gz")
    Image.fromarray(voxels[..., 0].T).save(path, quality=JPEG_QUALITY)
