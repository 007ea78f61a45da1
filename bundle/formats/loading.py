"""From the files of a pair to images, with labels and masks on their axes. A planar image is a one-slice volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.spatialimages import SpatialImage

from bundle.formats.images import as_label, image_of, load_image
from bundle.formats.nibabel_files import found_in
from bundle.formats.problems import dimensions, grid_problems, other_grid
from bundle.formats.voxels import Found
from bundle.system.limits import Refused

KINDS = ("image", "label", "mask")
Grid = tuple[Sequence[int], np.ndarray]
"""Shape and voxel-to-world affine."""


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
            output[key] = load_part(output[key], kind, None if kind == "image" else grid, str(key))
        return output


def load_part(value: str | Path | MetaTensor, kind: str, grid: Grid | None = None, name: str = "") -> MetaTensor:
    """Load an image, label or mask; the whole bundle loads them through this function.

    The values of a label or mask are whole numbers. It is placed by its own affine: if only the order or direction of
    its axes differs from its image's, it gets the image's axes, and no value is interpolated. A label that lies
    elsewhere stays where it is, for ``bundle.formats.problems.label_problems`` to report.

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
        found = load_image(value, kind)
    elif kind == "image":
        found = value
    else:
        try:
            found = as_label(value, kind)
        except Refused as error:
            raise ValueError(f"{name}: {error}") from error
    return found if grid is None else _on_axes_of(found, *grid)


def in_memory(value: Any, name: str) -> MetaTensor:
    """An image, label or mask that a user has in memory, as ``load_part`` would read it from its file.

    Args:
        value: a nibabel or MONAI image, or an array and its affine.
        name: what messages call it; it ends in one of ``KINDS``.

    Raises:
        ValueError: when it is none of these, or its values are not numbers.
    """
    if isinstance(value, MetaTensor):
        if value.dtype in (torch.float32, torch.float64):
            return value
        found = _of_tensor(value)
    else:
        found = found_in(value) if isinstance(value, SpatialImage) else _found(value, name)
    if found.stored.kind not in "biuf":
        raise ValueError(f"{name}: values of the type {found.stored}, expected numbers")
    try:
        return image_of(found, name.rpartition("_")[2], name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _of_tensor(image: MetaTensor) -> Found:
    """A tensor of a type in which intensities are not worked on; NumPy has no bfloat16."""
    values = image.as_tensor().cpu()
    array = (values.float() if image.is_floating_point() else values).numpy()
    return Found(array, np.asarray(image.affine, dtype=float), array.dtype)


def _found(value: Any, name: str) -> Found:
    """An array and its affine."""
    try:
        voxels, affine = (np.asarray(part) for part in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(value).__name__}; expected a path, or an array and its affine") from error
    if affine.shape != (4, 4) or voxels.ndim not in (3, 4):
        raise ValueError(
            f"{name}: an array of shape {voxels.shape} and an affine of shape {affine.shape}; expected (X, Y, Z), of "
            "labels also (X, Y, Z, channels), and (4, 4)"
        )
    channels = voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)
    return Found(channels, affine.astype(float), voxels.dtype)


def _on_axes_of(label: MetaTensor, shape: Sequence[int], target: np.ndarray) -> MetaTensor:
    """A label with its axes in the order and direction of its image's, if it then lies on the image's grid."""
    affine = np.asarray(label.affine, dtype=float)
    for grid, placed in ((label.shape[1:], affine), (shape, target)):
        if grid_problems(grid, placed, "", dimensions(grid)):
            return label
    # Voxels of the image along the axes of the label: a signed permutation if both have the same grid.
    turn = nib.orientations.io_orientation(np.linalg.inv(target) @ affine)
    if np.isnan(turn).any() or np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        return label
    turned = affine @ nib.orientations.inv_ornt_aff(turn, label.shape[1:])
    voxels = np.stack([nib.orientations.apply_orientation(channel, turn) for channel in label.numpy()])
    if other_grid(voxels.shape[1:], turned, "", shape, target):
        return label
    meta = {**label.meta, "affine": torch.as_tensor(turned)}
    return MetaTensor(torch.as_tensor(np.ascontiguousarray(voxels)), meta=meta)
