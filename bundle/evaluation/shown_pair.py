"""A registered pair as its page draws it."""

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
LABELS = {"fixed": "native_fixed_label", "moving": "aligned_label", "warped": "warped_label"}


@dataclass(frozen=True, eq=False)
class ShownPair:
    """A registered pair on the grid of its fixed image, turned as it is shown; arrays ``(X, Y, Z)``.

    Attributes:
        views: the slices that are shown.
        images: ``fixed``, ``moving`` (initially aligned) and ``warped``, each from 0 to 1.
        labels: by the same names, the mask of every structure; without labels empty.
        field: displacement of the registration itself, ``(3, X, Y, Z)``, mm along the turned axes.
        log_jacobian: natural logarithm of the Jacobian determinant; NaN where the field folds.
    """

    views: list[View]
    images: dict[str, np.ndarray]
    labels: dict[str, list[np.ndarray]]
    field: np.ndarray
    log_jacobian: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Length of the displacement, mm."""
        return np.linalg.norm(self.field, axis=0)

    def difference(self, name: str) -> np.ndarray:
        """The moving or the warped image minus the fixed one, -1 to 1."""
        return self.images[name] - self.images["fixed"]

    def checkerboard(self, view: View) -> np.ndarray:
        """Squares of the fixed and the warped image in turn, in pixels of a view."""
        fixed, warped = (view.pixels(self.images[name]) for name in ("fixed", "warped"))
        rows, columns = np.indices(fixed.shape)
        side = max(view.size) / SQUARES
        across, down = (spacing * view.step for spacing in view.spacing)
        squares = (columns * across // side + rows * down // side) % 2
        return np.where(squares, fixed, warped)


def shown_pair(data: Mapping[Hashable, Any]) -> ShownPair:
    """Prepare a pair after ``bundle.registration.NativeOutputsd``."""
    native = data["native_fixed_image"]
    affine, shape = np.asarray(native.affine), native.shape[1:]
    volumes = Volumes(affine, shape, picture="mode" in native.meta)
    moving = data["native_moving_image"][0].numpy()
    images = {
        "fixed": scaled(native[0].numpy(), native[0].numpy()),
        "moving": scaled(data["aligned_image"][0].numpy(), moving),
        "warped": scaled(data["warped_image"][0].numpy(), moving),
    }
    labels = {
        name: [volumes.turn(mask) for mask in structures(data[key][0].numpy())]
        for name, key in LABELS.items()
        if key in data
    }
    displacement = data["displacement"].as_tensor()
    field = without_alignment(displacement, affine, np.asarray(data["initial_alignment"])).numpy()
    whole = np.any(labels["fixed"], axis=0) if labels.get("fixed") else None
    return ShownPair(
        views=volumes.views(whole),
        images={name: volumes.turn(image) for name, image in images.items()},
        labels=labels,
        field=volumes.along_axes(field),
        log_jacobian=volumes.turn(log_jacobian(data)),
    )


def structures(label: np.ndarray) -> list[np.ndarray]:
    """Mask of every value of a label map but 0; of the first channel of other labels, itself."""
    return [label == value for value in np.unique(label) if value != 0]


def log_jacobian(data: Mapping[Hashable, Any]) -> np.ndarray:
    """Logarithm of the Jacobian determinant at the fixed image's voxels, from the nearest of the network's grid.

    Returns:
        Shape of the fixed image; NaN where the field folds.
    """
    determinant = jacobian_determinant(torch.as_tensor(data["pred"]["ddf"]).cpu())
    fixed, network = (np.asarray(data[key].affine) for key in ("native_fixed_image", "fixed_image"))
    voxels = apply_affine(np.linalg.inv(network) @ fixed, voxel_grid(data["native_fixed_image"].shape[1:]))
    volume = determinant.reshape(*determinant.shape, *[1] * (3 - determinant.ndim))
    nearest = sample(volume[None], voxels, mode="nearest", padding_mode="border")[0]
    return np.where(nearest > 0, np.log(nearest.clamp_min(1e-6)), np.nan)
