"""A picture of a registered pair."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from monai.transforms import Transform

from bundle.data import is_picture


class PairPictured(Transform):
    """Picture of a registered pair as PNG bytes under ``picture``.

    Rows: the three planes through the middle of the fixed image; of a single slice, itself. Columns: fixed, moving
    (initially aligned), warped, checkerboard of fixed and warped, displacement in mm. The first structure of the labels
    is outlined, fixed green and moving or warped red.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw one pair after ``bundle.results.NativeOutputsd``."""
        images = {
            "fixed": data["native_fixed_image"][0].numpy(),
            "moving": data["aligned_image"][0].numpy(),
            "warped": data["warped_image"][0].numpy(),
        }
        labels = {
            name: first_structure(data[key].numpy())
            for name, key in (("fixed", "native_fixed_label"), ("moving", "aligned_label"), ("warped", "warped_label"))
            if key in data
        }
        shape = images["fixed"].shape
        board = np.indices(shape) // max(4, max(shape) // 12)
        images["checkerboard"] = np.where(board.sum(0) % 2, images["fixed"], images["warped"])
        magnitude = np.linalg.norm(data["displacement"].numpy(), axis=0)
        spacing = data["native_fixed_image"].pixdim.tolist()
        planes = [plane for plane in range(3) if min(shape[:plane] + shape[plane + 1 :]) > 1]
        # The rows of a picture go down, the second axis of a volume goes up.
        origin: Any = "upper" if is_picture(data["native_fixed_image"]) else "lower"
        # Figures of pyplot are numbered in one list, which threads would share.
        figure = Figure(figsize=(12, 2.5 * len(planes)), layout="constrained")
        axes = figure.subplots(len(planes), 5, squeeze=False)
        for line, plane in enumerate(planes):
            index = slice_of_interest(labels.get("fixed"), shape, plane)
            rows = [axis for axis in range(3) if axis != plane]
            aspect = spacing[rows[1]] / spacing[rows[0]]
            for axis, (name, image) in zip(axes[line], images.items(), strict=False):
                axis.imshow(image.take(index, plane).T, cmap="gray", origin=origin, aspect=aspect)
                axis.set_title(name if line == 0 else "")
                for outlined, colour in (("fixed", "lime"), (name, "red")):
                    if name in labels and outlined in labels and (outlined, colour) != ("fixed", "red"):
                        outline(axis, labels[outlined].take(index, plane).T, colour)
            shown = axes[line, 4].imshow(
                magnitude.take(index, plane).T,
                cmap="viridis",
                origin=origin,
                aspect=aspect,
                vmin=0,
                vmax=magnitude.max(),
            )
            axes[line, 4].set_title("displacement (mm)" if line == 0 else "")
            figure.colorbar(shown, ax=axes[line, 4], fraction=0.05)
        for axis in axes.flat:
            axis.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        return {**data, "picture": buffer.getvalue()}


def outline(axis: Any, mask: np.ndarray, colour: str) -> None:
    """Draw the border of a mask that lies in the slice."""
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=colour, linewidths=1)


def first_structure(label: np.ndarray) -> np.ndarray:
    """Mask of the first channel, or of every value of an integer map, from ``(channels, *shape)``."""
    return label[0] > 0


def slice_of_interest(label: np.ndarray | None, shape: Sequence[int], axis: int) -> int:
    """Index of the slice across ``axis`` with most of the label, or the middle one without a label."""
    if label is None or not label.any():
        return shape[axis] // 2
    others = tuple(other for other in range(label.ndim) if other != axis)
    return int(label.sum(others).argmax())
