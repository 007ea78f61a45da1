"""Pictures (PNG, JPEG, TIFF, BMP) and NumPy arrays: they have no position in space, and a spacing of 1 mm."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from bundle.formats.voxels import Found, channels_first, check_numbers
from bundle.system.contents import IMAGES
from bundle.system.limits import Refused, check_declared, regular_file, size

GREY_MODES = ("1", "L", "F", "I", "I;16", "I;16B", "I;16L")  # of Pillow: one value per pixel
NO_PLACE = (
    "an array alone has no spacing and no place; its voxels are taken as 1 mm, its axes as right, anterior, superior; "
    "save it as NIfTI"
)
TURNED_ARRAY = (
    "an array of a slice does not say which of its axes is which; the first is taken for columns, the second for rows, "
    "where arrays of pictures have rows first; save it as PNG or TIFF"
)
BITS, WHITE_IS, ORIENTATION, SAMPLES, SAMPLE_FORMAT, DEPTH = 258, 262, 274, 277, 339, 32997
"""Tags of TIFF: bits of a number, whether 0 is white (0) or black (1), how viewers turn the picture, numbers of a
pixel, whether these have a sign (2), none (1), or are fractions (3), and slices of a volume."""
BEGINNINGS = tuple(start for (_, start), (kind, _) in IMAGES.items() if kind == "TIFF")
"""First bytes of a TIFF, of either order of bytes."""
KINDS = {2: "whole numbers with a sign", 3: "floating-point numbers"}
OWN_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's names of big-endian numbers, and of those in the order of the machine."""
TURNS = range(2, 9)
"""Orientations of Exif and TIFF that turn or mirror."""
TURNED = "its orientation {}, by which viewers turn or mirror it, is not applied, as in ITK; save it as it is shown"
JPEG_QUALITY = 95
LABEL_FORMATS = "a format that keeps values, such as PNG, or NIfTI"


def read_picture(path: Path, kind: str) -> Found:
    """Read a picture: the first axis counts columns, the second rows, as in ITK; the affine is the identity.

    The colours of an image become grey. The values of a label or mask are the indices of its palette, if it has one;
    colours and JPEG are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(regular_file(path)) as picture:
                check_declared(picture.size, 1, None)
                _in_own_order(picture)
                turned = getattr(picture, "tag_v2", {}).get(ORIENTATION, 1)
                if turned in TURNS:  # ITK makes colours of such a TIFF, and Pillow mixes up its pixels
                    raise Refused(f"its orientation is {turned}, which tools apply differently; save it as it is shown")
                one = _grey(picture) if kind == "image" else _values(picture, kind)
                pixels = _as_in_tiff(picture, np.asarray(one))
                turned = picture.getexif().get(ORIENTATION, 1)
                note = TURNED.format(turned) if turned in TURNS else ""
                return Found(pixels.T[None], np.eye(4), pixels.dtype.newbyteorder("="), note, {"mode": one.mode})
    except Image.UnidentifiedImageError as error:
        if what := _kind_of_tiff(path):
            raise Refused(f"{what}, which are not read; save it as PNG") from error
        raise
    except Image.DecompressionBombError as error:
        declared = re.search(r"\d+", str(error))
        raise Refused(
            f"its header declares {declared[0] if declared else 'too many'} pixels, more than the "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0)} of a picture that are read; crop it"
        ) from error


def _in_own_order(picture: Image.Image) -> None:
    """Have Pillow take compressed numbers as libtiff gives them: in the order of the machine, not that of the file."""
    tiles: list[Any] = getattr(picture, "tile", [])
    if tiles and tiles[0][0] == "libtiff" and tiles[0][3][0] in OWN_ORDER:
        *where, (kind, *rest) = tiles[0]
        tile = (*where, (OWN_ORDER[kind], *rest))
        tiles[0] = tiles[0]._make(tile) if hasattr(tiles[0], "_make") else tile  # a plain tuple before Pillow 11


def _kind_of_tiff(path: Path) -> str:
    """What the pixels of a TIFF are that Pillow does not know; empty if it is no TIFF, or cut short."""
    with path.open("rb") as file:
        start = file.read(8)
        if not start.startswith(BEGINNINGS):
            return ""
        tags = ImageFileDirectory_v2(start)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of tags that are not all there
                file.seek(tags.next)
                tags.load(file)
        except (OSError, ValueError, SyntaxError, UserWarning):
            return ""
    bits, kind = tags.get(BITS, (1,)), KINDS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "whole numbers")
    if WHITE_IS not in tags:
        return ""
    each = f"pixels of {len(bits)} values, " if tags.get(SAMPLES, 1) > 1 else ""
    white = "where 0 is white" if tags[WHITE_IS] == 0 else ""
    order = "big-endian" if start.startswith(b"MM") else ""
    return f"a TIFF of {each}" + " ".join(filter(None, (order, f"{kind} of {bits[0]} bits", white)))


def _as_in_tiff(picture: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Pixels as a TIFF has them and ITK reads them; Pillow inverts them where 0 is white, and ignores their sign."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(WHITE_IS) == 0 and picture.mode in ("1", "L"):
        pixels = ~pixels
    kind = {1: "u", 2: "i"}.get(tags.get(SAMPLE_FORMAT, (1,))[0])
    if kind and pixels.dtype.kind in "iu" and tags.get(BITS) == (8 * pixels.itemsize,):
        pixels = pixels.view(f"{pixels.dtype.byteorder}{kind}{pixels.itemsize}")
    return pixels


def _one(picture: Image.Image) -> None:
    count = getattr(picture, "n_frames", 1) * getattr(picture, "tag_v2", {}).get(DEPTH, 1)
    if count > 1:
        raise Refused(f"the file holds {count} pictures, expected one; save each in a file of its own")


def _grey(picture: Image.Image) -> Image.Image:
    """A picture with one value per pixel; colours, including a palette's, become grey."""
    _one(picture)
    if picture.mode in GREY_MODES:
        return picture
    _refuse_deep(picture, "picture")
    return picture.convert("L")


def _refuse_deep(picture: Image.Image, kind: str) -> None:
    """Refuse several values of 16 bits per pixel: Pillow drops the lower 8 in silence."""
    if any(";16" in str(tile) for tile in getattr(picture, "tile", ())):
        raise Refused(
            f"a {kind} in colours or with transparency of 16 bits, expected one number; save it as grey values"
        )


def _values(picture: Image.Image, kind: str) -> Image.Image:
    """A picture whose pixels are the values of a label."""
    _one(picture)
    if picture.format == "JPEG" or "jpeg" in str(picture.info.get("compression")):  # TIFF may be compressed so too
        raise Refused(f"a {kind} in JPEG, whose compression changes values; save it in {LABEL_FORMATS}")
    if picture.mode == "P" or picture.mode in GREY_MODES:
        return picture
    _refuse_deep(picture, kind)
    grey, *others = picture.convert("RGB").split()
    if "A" in picture.getbands():
        shown, values = (np.asarray(band) for band in (picture.getchannel("A"), grey))
        if shown.min() < shown.max() and ((shown > 0) != (values > 0)).any():
            raise Refused(f"a {kind} with transparency that its values do not follow; save it as grey values alone")
    if any(other.tobytes() != grey.tobytes() for other in others):
        raise Refused(f"a {kind} in colours, expected one number per pixel; save it as grey values or with a palette")
    return grey


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
    check_numbers(array.dtype)
    check_declared(array.shape, array.dtype.itemsize, None)
    channels = channels_first(np.array(array))
    planar = channels.ndim == 3 or 1 in channels.shape[1:]
    note = TURNED_ARRAY if planar else NO_PLACE if kind == "image" else ""
    return Found(channels, np.eye(4), array.dtype.newbyteorder("="), note)


def write_picture(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write ``(X, Y, 1)``; a picture keeps no position."""
    if voxels.ndim != 3 or voxels.shape[2] != 1:
        raise Refused(f"a picture holds one slice, the image is {size(voxels.shape)}; write it as .nii.gz")
    Image.fromarray(voxels[..., 0].T).save(path, quality=JPEG_QUALITY)
