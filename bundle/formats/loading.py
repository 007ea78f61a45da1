"""Files of a pair -> images. A planar image is a volume of one slice: from here on there are volumes only."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageReader, ITKReader, MetaTensor, NibabelReader, NumpyReader, PILReader
from monai.data.utils import to_affine_nd
from monai.transforms import EnsureChannelFirst, MapTransform
from monai.transforms.io.array import switch_endianness
from monai.utils import ImageMetaKey
from PIL import Image

from bundle.formats.dicom_volume import load_series
from bundle.formats.headers import NIFTI_SUFFIXES, PICTURE_SUFFIXES, check_image
from bundle.formats.saving import stored_type
from bundle.geometry import corner_distance, spacing_of
from bundle.system.errors import DataWarning, brief
from bundle.system.files import silent_libraries
from bundle.system.limits import Refused

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


def nifti_affine(path: str | Path) -> np.ndarray:
    """Voxel-to-world affine ``(4, 4)`` of a NIfTI file, mm, RAS: the sform if there is one, else the qform.

    Warns:
        DataWarning: when the file has both and they are a tenth of a voxel apart, since other tools may take the qform.
    """
    image = nib.load(path)
    forms = image.get_sform(coded=True), image.get_qform(coded=True)
    if all(code > 0 for _, code in forms):
        (sform, _), (qform, _) = forms
        apart = corner_distance(image.shape[:3], sform, qform)
        if apart > 0.1 * spacing_of(sform).min():
            warnings.warn(
                f"{path}: sform and qform disagree by up to {apart:.3g} mm; the sform is used, other tools may take "
                "the qform; correct the header",
                DataWarning,
                stacklevel=2,
            )
    return np.asarray(image.affine, dtype=np.float64)


def load_image(path: str | Path, label: bool = False) -> MetaTensor:
    """Read an image as a volume, channel first.

    A file of two axes (a picture, a 2-D NIfTI) becomes one slice, the first axis counting columns and the second rows
    as in ITK; a picture has no position in space, so its pixels are 1 mm apart and its affine is the identity. ``meta``
    tells the ``stored_type`` of the voxels in the file, and Pillow's ``mode`` of a picture.

    Args:
        path: of the file, or of the folder of a DICOM series.
        label: whether it is a label or mask, whose values must stay as they are.

    Returns:
        ``(channels, X, Y, Z)``, with a 4x4 affine.

    Raises:
        ValueError: when the file cannot be read, or asks for more memory than files get; in one line that names it.
    """
    try:
        if Path(path).is_dir():
            return load_series(Path(path))
        check_image(path)
        return _load(path, label)
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # every reader fails in its own way: OSError, EOFError, zlib.error, RuntimeError ...
        raise ValueError(f"{path}: cannot be read, damaged or not an image ({brief(error)})") from error


def _load(path: str | Path, label: bool) -> MetaTensor:
    name = str(path).lower()
    picture = name.endswith(PICTURE_SUFFIXES)
    # What ITK prints of a damaged file is in its error too.
    with silent_libraries():
        image = _read(path, _reader(name, label))
    affine = torch.eye(3, dtype=torch.float64) if picture else image.affine
    if name.endswith(NIFTI_SUFFIXES):
        # MONAI takes the origin of a 4-D file for a spacing, finds a mismatch, and may put an unset qform in its place.
        affine = nifti_affine(path)
    voxels = image.as_tensor() if image.ndim != 3 else image.as_tensor()[..., None]
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(voxels, affine=to_affine_nd(3, affine), meta={**meta, "stored_type": str(stored_type(path))})


def _reader(name: str, label: bool) -> ImageReader:
    """The reader that MONAI's LoadImage would take, which makes every reader it has, to warn of what they lack."""
    if name.endswith(PICTURE_SUFFIXES):
        return PILReader(converter=one_label_picture if label else one_grey_picture)
    if name.endswith(NIFTI_SUFFIXES):
        return NibabelReader()
    return NumpyReader() if name.endswith(".npy") else ITKReader()


def _read(path: str | Path, reader: ImageReader) -> MetaTensor:
    """What a reader finds in a file, channel first."""
    array, meta = reader.get_data(reader.read(str(path)))
    meta = {**switch_endianness(meta, "<"), ImageMetaKey.FILENAME_OR_OBJ: str(path)}
    image = MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)
    return EnsureChannelFirst()(image)


class LoadPaird(MapTransform):
    """``load_image`` for every file of a pair.

    Args:
        keys: of the files, whose paths become images with metadata; an image in memory stays as it is.
        allow_missing_keys: as in MONAI.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every file.

        Raises:
            ValueError: when one cannot be read.
        """
        output = dict(data)
        for key in self.key_iterator(output):
            if not isinstance(output[key], MetaTensor):  # or an image that is in memory already
                output[key] = load_image(output[key], label="image" not in str(key))
        return output
