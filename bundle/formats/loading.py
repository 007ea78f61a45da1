"""The images of a pair as MONAI's tensors, from files or from memory. A planar image is a one-slice volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys
from nibabel import Nifti1Header
from nibabel.spatialimages import SpatialImage

from bundle.formats.images import as_label, as_volume, read_image
from bundle.formats.nibabel_files import found_in
from bundle.formats.parts import KINDS, Grid, on_axes_of, read_part
from bundle.formats.voxels import Found, check_numbers
from bundle.geometry import RAS_TO_LPS
from bundle.system.errors import brief
from bundle.system.limits import Refused

IN_MEMORY = "a path, an image of MONAI or nibabel, or an array (X, Y, Z) and its affine (to RAS, mm)"


class LoadPaird(MapTransform):
    """Apply ``load_part`` to every file of a pair, or of a single image.

    Args:
        keys: keys of the files, whose paths become images with metadata; an image in memory stays as it is. Keys end in
            ``image``, ``label`` or ``mask``; the prefix is the same for the parts of one image.
        allow_missing_keys: as in MONAI.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every file.

        Raises:
            ValueError: when one cannot be read, or the values of a label or mask are not whole numbers.
        """
        output = dict(data)
        kinds = {key: next(kind for kind in KINDS if str(key).endswith(kind)) for key in self.key_iterator(output)}
        for key, kind in sorted(kinds.items(), key=lambda item: KINDS.index(item[1])):
            image = output.get(f"{str(key).removesuffix(kind)}image")
            grid = (image.shape[1:], np.asarray(image.affine)) if isinstance(image, MetaTensor) else None
            output[key] = load_part(output[key], kind, grid, str(key))
        return output


def load_image(path: str | Path, kind: str = "image") -> MetaTensor:
    """``bundle.formats.images.read_image`` as a tensor, with its ``stored_type`` in ``meta``."""
    return _tensor(read_image(path, kind), {ImageMetaKey.FILENAME_OR_OBJ: str(Path(path))})


def file_of(part: MetaTensor) -> str:
    """The file or folder that a part of a pair was read from; empty for one in memory."""
    return str(part.meta.get(ImageMetaKey.FILENAME_OR_OBJ, ""))


def load_part(value: str | Path | MetaTensor, kind: str, grid: Grid | None, name: str) -> MetaTensor:
    """``bundle.formats.parts.read_part`` as a tensor; an image in memory is treated as a file would be.

    Args:
        value: a file, or an image in memory.
        kind: one of ``KINDS``.
        grid: grid of the image to which a label or mask belongs, if known.
        name: name in messages of an image in memory.

    Returns:
        ``(channels, X, Y, Z)``.

    Raises:
        ValueError: when it cannot be read, or the values of a label or mask are not whole numbers.
    """
    if not isinstance(value, MetaTensor):
        return _tensor(read_part(value, kind, grid), {ImageMetaKey.FILENAME_OR_OBJ: str(Path(value))})
    if kind == "image":
        return value
    stored = np.dtype(value.meta.get("stored_type", np.float32))
    try:
        found = as_label(Found(value.numpy(), np.asarray(value.affine, dtype=float), stored), kind, name)
    except Refused as error:
        raise ValueError(f"{name}: {error}") from error
    return _tensor(found if grid is None else on_axes_of(found, *grid, name), value.meta)


def _tensor(found: Found, meta: Mapping[str, Any]) -> MetaTensor:
    kept = {**meta, **found.meta, "stored_type": str(found.stored), "affine": torch.as_tensor(found.affine)}
    # torch warns of arrays that may not be written to.
    return MetaTensor(torch.as_tensor(np.require(found.channels, requirements="W")), meta=kept)


def in_memory(value: Any, name: str) -> MetaTensor:
    """An image, label or mask that a user has in memory, as ``load_part`` would read it from its file.

    Args:
        value: a nibabel image, an array and its affine, or a MONAI image, channel first or without a channel axis.
        name: what messages call it; it ends in one of ``KINDS``.

    Raises:
        ValueError: when it is none of these, or its values are not numbers.
    """
    if name.endswith("landmarks"):
        raise ValueError(f"{name} is a {type(value).__name__}, expected the path of a file of points")
    try:
        if isinstance(value, MetaTensor):
            value = _channel_first(_settled(value))
            if value.ndim == 4 and value.dtype in (torch.float32, torch.float64):
                return value
            found = _of_tensor(value)
        else:
            found = _of_nibabel(value) if isinstance(value, SpatialImage) else _found(value)
        check_numbers(found.stored)
        return _tensor(as_volume(found, name.rpartition("_")[2], name), {})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _settled(image: MetaTensor) -> MetaTensor:
    """A tensor on the CPU, without a history of gradients, with its affine in RAS.

    Raises:
        Refused: for transforms that MONAI has noted and not yet applied.
    """
    if image.pending_operations:
        raise Refused("a MetaTensor with lazy transforms that are not applied yet; apply_pending of MONAI does it")
    image = image.detach().cpu()
    if image.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:  # of a reader that keeps what ITK gives
        image = MetaTensor(image.as_tensor(), meta=image.meta | {MetaKeys.SPACE: SpaceKeys.RAS})
        image.affine = torch.as_tensor(RAS_TO_LPS) @ image.affine.double()
    return image


def _channel_first(image: MetaTensor) -> MetaTensor:
    """A volume or slice without a channel axis, as MONAI reads it, gets one; three axes that begin with 1 have one."""
    voxels = image.as_tensor()
    voxels = voxels[None] if voxels.ndim == 2 or voxels.ndim == 3 and len(voxels) != 1 else voxels
    return MetaTensor(voxels, meta=image.meta)  # anew: MONAI keeps the number of axes with spacing that it had before


def _of_tensor(image: MetaTensor) -> Found:
    """A tensor of a type in which intensities are not worked on."""
    array = _array(image.as_tensor())
    return Found(array, np.asarray(image.affine, dtype=float), array.dtype)


def _of_nibabel(image: SpatialImage) -> Found:
    """A nibabel image, whose voxels may still be in its file."""
    if image.affine is None and not isinstance(image.header, Nifti1Header):
        raise Refused("an image of nibabel without an affine; give it one")
    try:
        return found_in(image)
    except Refused:
        raise
    except Exception as error:  # as in reading a file: OSError, EOFError, zlib.error ...
        raise Refused(f"the voxels of its file {image.get_filename()} cannot be read ({brief(error)})") from error


def _found(value: Any) -> Found:
    """An array and its affine."""
    # An array would be taken apart too.
    parts = value if isinstance(value, tuple | list) and len(value) == 2 else ()
    if not parts or any(isinstance(part, str | PathLike) for part in parts):
        raise Refused(f"a {type(value).__name__}, expected {IN_MEMORY}")
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise Refused("a masked array, whose mask would be lost; fill it, and give the mask as a mask image")
    try:
        voxels, affine = map(_array, parts)
        affine = affine.astype(float)
    except (TypeError, ValueError) as error:
        raise Refused(f"{' and '.join(f'a {type(part).__name__}' for part in parts)}, expected {IN_MEMORY}") from error
    if affine.shape != (4, 4) or voxels.ndim not in (3, 4):
        raise Refused(
            f"an array of shape {voxels.shape} and an affine of shape {affine.shape}; expected (X, Y, Z), of "
            "labels also (X, Y, Z, channels), and (4, 4)"
        )
    if voxels.ndim == 4 and len(voxels) == 1:  # a channel that comes first: no image has a single voxel along X
        voxels = voxels[0]
    channels = voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)
    return Found(channels, affine, voxels.dtype.newbyteorder("="))


def _array(part: Any) -> np.ndarray:
    """An array of NumPy, or of torch on any device; NumPy has no bfloat16."""
    if isinstance(part, torch.Tensor):
        part = part.detach().cpu()
        part = part.float() if part.dtype == torch.bfloat16 else part
    return np.asarray(part)
