"""The slices of a registered pair that its page draws."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bundle.evaluation.figures import scaled
from bundle.evaluation.views import View, Volumes
from bundle.geometry import apply_affine, jacobian_determinant, sample, voxel_grid, without_alignment

SQUARES = 6
"""Squares of the checkerboard along the longer side of a slice."""
MOST_SAMPLES = 200_000
"""Voxels that the range of intensities is taken from."""
IMAGES = {"fixed": "native_fixed_image", "moving": "aligned_image", "warped": "warped_image"}
LABELS = {"fixed": "native_fixed_label", "moving": "aligned_label", "warped": "warped_label"}


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """A slice of a registered pair, arrays ``(rows, columns)`` of the fixed image's voxels, the first row on top.

    Attributes:
        view: which slice.
        images: ``fixed``, ``moving`` (initially aligned) and ``warped``, each from 0 to 1.
        labels: by the same names, the mask of every structure; without labels empty.
        right: component to the right of the displacement, mm, the initial alignment taken out.
        down: component downwards.
        length: of the displacement, out of the plane too, mm.
        log_jacobian: natural logarithm of the Jacobian determinant; NaN where the field folds.
    """

    view: View
    images: dict[str, np.ndarray]
    labels: dict[str, list[np.ndarray]]
    right: np.ndarray
    down: np.ndarray
    length: np.ndarray
    log_jacobian: np.ndarray

    @property
    def folded(self) -> np.ndarray:
        """Where the field folds."""
        return np.isnan(self.log_jacobian)

    def difference(self, name: str) -> np.ndarray:
        """The moving or the warped image minus the fixed one, -1 to 1."""
        return self.images[name] - self.images["fixed"]

    def checkerboard(self) -> np.ndarray:
        """Squares of the fixed and the warped image in turn, in pixels of the view."""
        fixed, warped = (self.view.pixels(self.images[name]) for name in ("fixed", "warped"))
        rows, columns = np.indices(fixed.shape)
        side = max(self.view.size) / SQUARES
        across, down = (spacing * self.view.step for spacing in self.view.spacing)
        return np.where((columns * across // side + rows * down // side) % 2, fixed, warped)


def shown_slices(data: Mapping[Hashable, Any]) -> list[ShownSlice]:
    """The orthogonal slices through most of the label, or the middle, of a pair after ``NativeOutputsd``.

    Only slices are worked on: a page costs no more for a large volume.
    """
    native = data["native_fixed_image"]
    volumes = Volumes(np.asarray(native.affine), native.shape[1:], picture="mode" in native.meta)
    images = {name: volumes.turn(data[key][0].numpy()) for name, key in IMAGES.items()}
    moving = samples(data["native_moving_image"][0].numpy())
    ranges = {"fixed": samples(images["fixed"]), "moving": moving, "warped": moving}
    labels = {name: volumes.turn(data[key][0].numpy()) for name, key in LABELS.items() if key in data}
    displacement = [volumes.turn(component) for component in data["displacement"].numpy()]
    determinant = jacobian_determinant(torch.as_tensor(data["pred"]["ddf"]).cpu())
    shown = []
    for view in volumes.views(labels["fixed"] > 0 if "fixed" in labels else None):
        affine = view.slab(volumes.affine)
        slab = torch.as_tensor(np.stack([view.thick(component) for component in displacement]))
        field = without_alignment(slab, affine, np.asarray(data["initial_alignment"])).numpy()
        components = [view.flat(component) for component in volumes.along_axes(field)]
        down = components[view.axes[1]]
        shown.append(
            ShownSlice(
                view,
                {name: scaled(view.cut(image), ranges[name]) for name, image in images.items()},
                {name: structures(view.cut(label)) for name, label in labels.items()},
                right=components[view.axes[0]],
                down=-down if view.upwards else down,
                length=view.flat(np.linalg.norm(field, axis=0)),
                log_jacobian=view.flat(
                    log_jacobian(determinant, np.asarray(data["fixed_image"].affine), affine, slab.shape[1:])
                ),
            )
        )
    return shown


def samples(image: np.ndarray) -> np.ndarray:
    """Some of the voxels of an image, evenly spread."""
    return image.ravel()[:: max(1, image.size // MOST_SAMPLES)]


def structures(label: np.ndarray) -> list[np.ndarray]:
    """Mask of every value of a label map but 0; of a binary channel itself."""
    return [label == value for value in np.unique(label) if value != 0]


def log_jacobian(
    determinant: torch.Tensor, network_affine: np.ndarray, affine: np.ndarray, shape: torch.Size
) -> np.ndarray:
    """Logarithm of a Jacobian determinant, taken from the nearest voxel of the network's grid.

    Args:
        determinant: on the network's grid, two axes or three.
        network_affine: ``(4, 4)`` voxel-to-world of that grid.
        affine: ``(4, 4)`` voxel-to-world of the grid wanted.
        shape: of the grid wanted, three axes.

    Returns:
        That shape; NaN where the field folds.
    """
    volume = determinant.reshape(*determinant.shape, *[1] * (3 - determinant.ndim))
    voxels = apply_affine(np.linalg.inv(network_affine) @ affine, voxel_grid(shape))
    nearest = sample(volume[None], voxels, mode="nearest", padding_mode="border")[0]
    return np.where(nearest > 0, np.log(nearest.clamp_min(1e-6)), np.nan)
