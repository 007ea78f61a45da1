"""Files of a pair -> images. A planar image is a volume of one slice: from here on there are volumes only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, PILReader
from monai.data.utils import to_affine_nd
from monai.transforms import LoadImage, MapTransform
from PIL import Image

from bundle.data.errors import brief

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
GREY_MODES = ("1", "L", "F", "I", "I;16", "I;16B", "I;16L")  # of Pillow: one value per pixel


def one_grey_picture(picture: Image.Image) -> Image.Image:
    """A picture with one value per pixel; colours, those of a palette too, become grey.

    Raises:
        ValueError: when the file holds several pictures.
    """
    count = getattr(picture, "n_frames", 1)
    if count > 1:
        raise ValueError(f"the file holds {count} pictures, expected one; save each in a file of its own")
    return picture if picture.mode in GREY_MODES else picture.convert("L")


def one_label_picture(picture: Image.Image) -> Image.Image:
    """As ``one_grey_picture``, but the indices of a palette are the labels."""
    return picture if picture.mode == "P" else one_grey_picture(picture)


def load_image(path: str, label: bool = False) -> MetaTensor:
    """Read an image as a volume, channel first; ``meta["mode"]`` is Pillow's mode of a picture.

    A file of two axes (a picture, a 2-D NIfTI) becomes one slice, the first axis counting columns and the second rows
    as in ITK; a picture has no position in space, so its pixels are 1 mm apart and its affine is the identity.

    Args:
        path: of the file, or of the folder of a DICOM series.
        label: whether it is a label or mask, whose values must stay as they are.

    Returns:
        ``(channels, X, Y, Z)``, with a 4x4 affine.

    Raises:
        ValueError: when the file cannot be read; of its own kind for every reader.
    """
    picture = Path(path).suffix.lower() in PICTURE_SUFFIXES
    load = LoadImage(image_only=True, ensure_channel_first=True)
    converter = one_label_picture if label else one_grey_picture
    image = load(path, reader=PILReader(converter=converter)) if picture else load(path)
    if image.ndim != 3:
        return image
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    affine = to_affine_nd(3, torch.eye(3, dtype=torch.float64) if picture else image.affine)
    return MetaTensor(image.as_tensor()[..., None], affine=affine, meta=meta)


class LoadPaird(MapTransform):
    """``load_image`` for every file of a pair; an error names the file.

    Args:
        keys: of the files, whose paths become images with metadata.
        allow_missing_keys: as in MONAI.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every file.

        Raises:
            ValueError: when one cannot be read.
        """
        output = dict(data)
        for key in self.key_iterator(output):
            try:
                output[key] = load_image(output[key], label="image" not in str(key))
            except Exception as error:  # every reader fails in its own way: OSError, EOFError, zlib.error ...
                raise ValueError(f"{output[key]}: cannot be read, damaged or not an image ({brief(error)})") from error
        return output
