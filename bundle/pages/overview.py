"""A picture of a registered pair."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from monai.transforms import Transform

from bundle.evaluation.quality import length_unit
from bundle.pages.drawing import FIXED, MOVING
from bundle.pages.slices import ShownSlice, shown_slices

COLUMN, DPI = 2.3, 90
"""Width of a column in inches, dots per inch."""
TITLES = ("fixed", "moving, aligned", "warped", "fixed and warped")
RADIOLOGICAL = "Radiological: the patient's right (R) is on the left of the picture. "
CONTOURS = "Contours: fixed green, moving or warped red. "
LEGEND = "Displacement without the initial alignment."


class PairPictured(Transform):
    """Picture of a registered pair as PNG bytes under ``picture``: the slices of its page (``shown_slices``).

    Columns: fixed, moving (initially aligned), warped, checkerboard of fixed and warped, displacement without the
    initial alignment. Labels are outlined, fixed green and moving or warped red. All panels have the same scale in mm.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw one pair after ``bundle.results.NativeOutputsd``."""
        slices = shown_slices(data)
        sizes = np.array([shown.view.size for shown in slices])
        heights = sizes[:, 1] / sizes[:, 0].max()
        # pyplot keeps its figures in one list, which threads would share.
        figure = Figure(figsize=(COLUMN * (len(TITLES) + 1) + 1, COLUMN * heights.sum() + 0.7), layout="constrained")
        axes = figure.subplots(len(slices), len(TITLES) + 1, squeeze=False, height_ratios=heights)
        longest = max(float(shown.length.max()) for shown in slices) or 1.0
        for line, shown in zip(axes, slices, strict=True):
            _draw_images(line, shown)
            length = _draw(line[-1], shown, shown.view.pixels(shown.length), cmap="viridis", vmax=longest)
            if shown.view.letters:
                line[0].set_ylabel(f"{shown.view.name}\n{shown.view.position}", fontsize=9)
        for axis, title in zip(axes[0], (*TITLES, "displacement"), strict=True):
            axis.set_title(title, fontsize=10)
        unit = length_unit(data["native_fixed_image"])
        figure.colorbar(length, ax=axes[:, -1].tolist(), label=unit, fraction=0.08, pad=0.03)
        legend = [RADIOLOGICAL] * bool(slices[0].view.letters) + [CONTOURS] * bool(slices[0].labels) + [LEGEND]
        figure.supxlabel("".join(legend), fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        return {**data, "picture": buffer.getvalue()}


def _draw_images(line: Any, shown: ShownSlice) -> None:
    """Draw the images of a slice and their checkerboard, with contours on all but the checkerboard."""
    for axis, (name, image) in zip(line, shown.images.items(), strict=False):
        _draw(axis, shown, shown.view.pixels(image))
        for side, colour in (("fixed", FIXED), (name, MOVING))[: 1 + (name != "fixed")]:
            for mask in shown.labels.get(side, []) if name in shown.labels else []:
                outline(axis, shown.view.marks(mask), colour, extent=_extent(shown))
    _draw(line[len(shown.images)], shown, shown.checkerboard())


def _extent(shown: ShownSlice) -> tuple[float, float, float, float]:
    """Edges of a slice in mm from its upper left corner, rows downwards."""
    width, height = shown.view.size
    return 0, width, height, 0


def _draw(axis: Any, shown: ShownSlice, plane: np.ndarray, **style: Any) -> Any:
    """Draw a slice in mm, with the directions at its edges."""
    drawn = axis.imshow(plane, extent=_extent(shown), **{"cmap": "gray", "vmin": 0, "vmax": 1, **style})
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    places = ((0.05, 0.5), (0.95, 0.5), (0.5, 0.94), (0.5, 0.06))
    for letter, (x, y) in zip(shown.view.letters or (), places, strict=False):
        text = axis.text(x, y, letter, transform=axis.transAxes, color="white", fontsize=8, ha="center", va="center")
        text.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    return drawn


def outline(axis: Any, mask: np.ndarray, colour: str, **style: Any) -> None:
    """Draw the border of a mask that lies in the slice."""
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=colour, linewidths=1, **style)
