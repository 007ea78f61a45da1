"""Files of a pair -> images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform

from bundle.data.errors import brief


def load_image(path: str) -> MetaTensor:
    """Read an image file; a planar image becomes a volume of one slice.

    Args:
        path: the file, or the folder of a DICOM series.

    Returns:
        ``(channels, *shape)`` with three spatial axes and a 4 x 4 affine, voxel -> world.
    """
    image = LoadImage(image_only=True, ensure_channel_first=True)(path)
    if image.ndim != 3:
        return image
    volume: MetaTensor = image[..., None]
    if len(image.affine) == 3:  # of two axes, as ITK's planar images have it
        affine = np.eye(4)
        affine[:2, :2], affine[:2, 3] = image.affine[:2, :2], image.affine[:2, 2]
        volume.affine = torch.as_tensor(affine)
    return volume


class LoadPaird(MapTransform):
    """:func:`load_image` for every file of a pair; an error names the file.

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
                output[key] = load_image(output[key])
            except Exception as error:  # every reader fails in its own way: OSError, EOFError, zlib.error ...
                raise ValueError(f"{output[key]}: cannot be read, damaged or not an image ({brief(error)})") from error
        return output
