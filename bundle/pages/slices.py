"""The slices of a registered pair that its page shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bundle.data import is_picture
from bundle.evaluation.scored import in_fixed_numbers
from bundle.geometry import jacobian_determinant, native_ddf, without_alignment
from bundle.pages.drawing import scaled
from bundle.pages.views import View, Volumes

SQUARES = 6
"""Squares of the checkerboard along the longer side of a slice."""
MOST_SAMPLES = 200_000
"""Number of voxels from which the range of intensities is taken."""
IMAGES = {"fixed": "native_fixed_image", "moving": "aligned_image", "warped": "warped_image"}
LABELS = {"fixed": "native_fixed_label", "moving": "aligned_label", "warped": "warped_label"}


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """A slice of a registered pair, arrays ``(rows, columns)`` of the fixed image's voxels, the first row on top.

    Attributes:
        view: which slice.
        images: ``fixed``, ``moving`` (initially aligned) and ``warped``, each from 0 to 1.
        labels: by the same names, the mask of every value of a map, or of the first channel; empty without labels.
        right: component of the displacement to the right, mm, without the initial alignment.
        down: component downwards.
        length: length of the displacement in mm, including the part out of the plane.
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
        """Alternating squares of the fixed and the warped image, in pixels of the view."""
        fixed, warped = (self.view.pixels(self.images[name]) for name in ("fixed", "warped"))
        rows, columns = np.indices(fixed.shape)
        side = max(self.view.size) / SQUARES
        across, down = (spacing * self.view.step for spacing in self.view.spacing)
        return np.where((columns * across // side + rows * down // side) % 2, fixed, warped)


def shown_slices(data: Mapping[Hashable, Any]) -> list[ShownSlice]:
    """The orthogonal slices through most of the label, or the middle, of a pair after ``NativeOutputsd``.

    Of labels with channels it is the first channel of the fixed one, and the structure of that name in the moving one.
    Only slices are processed, so still pictures of a large volume take no longer.
    """
    data, native = in_fixed_numbers(data), data["native_fixed_image"]
    volumes = Volumes(np.asarray(native.affine), native.shape[1:], picture=is_picture(native))
    images = {name: volumes.turn(data[key][0].numpy()) for name, key in IMAGES.items()}
    moving = samples(data["native_moving_image"][0].numpy())
    ranges = {"fixed": samples(images["fixed"]), "moving": moving, "warped": moving}
    labels = {name: volumes.turn(data[key][0].numpy()) for name, key in LABELS.items() if key in data}
    displacement = [volumes.turn(component) for component in data["displacement"].numpy()]
    alignment = np.asarray(data["initial_alignment"])
    shown = []
    for view in volumes.views(labels["fixed"] > 0 if "fixed" in labels else None):
        slab = torch.as_tensor(np.stack([view.thick(component) for component in displacement]))
        field = without_alignment(slab, view.slab(volumes.affine, view.index), alignment).numpy()
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
                log_jacobian=view.flat(log_jacobian(displacement, view, volumes.affine, alignment)),
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
    displacement: Sequence[np.ndarray], view: View, affine: np.ndarray, alignment: np.ndarray
) -> np.ndarray:
    """Logarithm of the Jacobian determinant of a slice of a turned displacement, without the initial alignment.

    Args:
        displacement: three components ``(X, Y, Z)`` in mm, RAS, on the turned grid.
        view: view of the slice.
        affine: ``(4, 4)`` voxel-to-world of the turned grid.
        alignment: ``(4, 4)`` fixed world to moving world, mm.

    Returns:
        The slice as a volume of one slice; NaN where the field folds.
    """
    # Differences across the slice need its neighbours.
    first, last = max(0, view.index - 1), min(view.count, view.index + 2)
    slab = np.stack([component.take(range(first, last), view.across) for component in displacement])
    determinant = jacobian_determinant(native_ddf(torch.as_tensor(slab), view.slab(affine, first), alignment)).numpy()
    if view.count == 1:
        determinant = np.expand_dims(determinant, view.across)
    middle = determinant.take([view.index - first], view.across)
    return log_or_nan(middle)


def log_or_nan(determinant: np.ndarray) -> np.ndarray:
    """Natural logarithm of a Jacobian determinant; NaN where the field folds."""
    return np.where(determinant > 0, np.log(np.maximum(determinant, 1e-6)), np.nan)
