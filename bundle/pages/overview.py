"""A picture of a registered pair."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from monai.transforms import Transform

from bundle.evaluation.quality import length_unit
from bundle.pages.drawing import FIXED, MOVING, contours
from bundle.pages.slices import ShownSlice, shown_slices
from bundle.pages.views import View

COLUMN, GAP = 2.2, 0.1
"""Width of the widest slice and distance between slices, inches."""
LEFT, RIGHT, TOP, BOTTOM = 0.55, 0.85, 0.3, 0.3
"""Margins of the sheet, inches: for names of planes, the colour bar, titles and the legend."""
DPI = 90
TITLES = ("fixed", "moving, aligned", "warped", "fixed and warped", "displacement")
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
        scale = COLUMN / max(shown.view.size[0] for shown in slices)
        heights = np.array([shown.view.size[1] for shown in slices]) * scale
        tops = TOP + np.cumsum([0, *(heights[:-1] + GAP)])
        lefts = (LEFT if slices[0].view.letters else GAP) + np.arange(len(TITLES)) * (COLUMN + GAP)
        width, height = lefts[-1] + COLUMN + RIGHT, tops[-1] + heights[-1] + BOTTOM
        # pyplot keeps its figures in one list, which threads would share.
        figure = Figure(figsize=(width, height))
        # One sheet in inches: axes and a layout for every panel would take three times as long to draw.
        sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        sheet.set_axis_off()
        longest = max(float(shown.length.max()) for shown in slices) or 1.0
        for shown, top in zip(slices, tops, strict=True):
            panels = [Panel(sheet, shown.view, scale, left, top) for left in lefts]
            _draw_images(panels, shown)
            length = panels[-1].draw(shown.view.pixels(shown.length), cmap="viridis", vmax=longest)
            if shown.view.letters:
                name = f"{shown.view.name}\n{shown.view.position}"
                middle = top + panels[0].size[1] / 2
                sheet.text(LEFT - GAP, middle, name, fontsize=9, rotation=90, ha="right", va="center", ma="center")
        for left, title in zip(lefts, TITLES, strict=True):
            sheet.text(left + COLUMN / 2, TOP - GAP, title, fontsize=10, ha="center")
        legend = [RADIOLOGICAL] * bool(slices[0].view.letters) + [CONTOURS] * bool(slices[0].labels) + [LEGEND]
        sheet.text(width / 2, height - BOTTOM / 3, "".join(legend), fontsize=8, ha="center")
        bar = ((width - RIGHT + GAP) / width, BOTTOM / height, 1.5 * GAP / width, 1 - (TOP + BOTTOM) / height)
        figure.colorbar(length, cax=figure.add_axes(bar), label=length_unit(data["native_fixed_image"]))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        return {**data, "picture": buffer.getvalue()}


class Panel:
    """A place on the sheet for a picture of a slice.

    Args:
        sheet: axes in inches, rows downwards.
        view: view of the slice.
        scale: inches per mm.
        left: left edge of the column, inches; a slice that is narrower lies in its middle.
        top: upper edge, inches.
    """

    def __init__(self, sheet: Axes, view: View, scale: float, left: float, top: float) -> None:
        self.sheet, self.view, self.scale = sheet, view, scale
        self.size = np.array(view.size) * scale
        self.corner = np.array([left + (COLUMN - self.size[0]) / 2, top])

    def draw(self, plane: np.ndarray, **style: Any) -> AxesImage:
        """Draw pixels of the view, with the directions at its edges."""
        (left, top), (right, bottom) = self.corner, self.corner + self.size
        style = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto", **style}
        drawn = self.sheet.imshow(plane, extent=(left, right, bottom, top), **style)
        places = ((0.05, 0.5), (0.95, 0.5), (0.5, 0.06), (0.5, 0.94))
        for letter, place in zip(self.view.letters or (), places, strict=False):
            x, y = self.corner + np.array(place) * self.size
            text = self.sheet.text(x, y, letter, color="white", fontsize=8, ha="center", va="center")
            text.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
        return drawn

    def outline(self, mask: np.ndarray, colour: str) -> None:
        """Draw the border of a mask of the slice's voxels."""
        lines = [self.corner + line * self.scale for line in contours(self.view, mask)]
        self.sheet.add_collection(LineCollection(lines, colors=colour, linewidths=1), autolim=False)


def _draw_images(panels: list[Panel], shown: ShownSlice) -> None:
    """Draw the images of a slice and their checkerboard, with contours on all but the checkerboard."""
    for panel, (name, image) in zip(panels, shown.images.items(), strict=False):
        panel.draw(panel.view.pixels(image))
        for side, colour in (("fixed", FIXED), (name, MOVING))[: 1 + (name != "fixed")]:
            for mask in shown.labels.get(side, []) if name in shown.labels else []:
                panel.outline(mask, colour)
    panels[len(shown.images)].draw(shown.checkerboard())
