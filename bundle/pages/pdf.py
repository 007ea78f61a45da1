"""The quality of a registered pair on one page of PDF, for archives that keep no HTML."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Hashable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import imread
from monai.transforms import Transform

from bundle.evaluation.quality import length_unit
from bundle.pages.overview import PairPictured
from bundle.pages.page import named, numbers, structure_names

A4 = (8.27, 11.69)
"""Inches."""
COLOURS = {"good": "#1a7f37", "check": "#a85400", "failed": "#c62828"}
PLACES = ((0.07, 0.78, 0.86, 0.17), (0.05, 0.42, 0.9, 0.34), (0.07, 0.03, 0.86, 0.37))
"""Places of the verdict, the picture and the numbers: left, bottom, width, height, as shares of the page."""
SMALL = 8
"""Size of letters in points."""
WIDTH, LINES = 115, 34
"""Letters on a line of the verdict, and lines of a table."""


class QualityPdfd(Transform):
    """One page of PDF under ``pdf``: the verdict with its reasons, the picture of the pair, the numbers.

    It names neither the pair nor its files: in an archive, the object around it says to whom it belongs.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw one pair after ``QualityVerdictd``."""
        shown = data if "picture" in data else PairPictured()(data)
        figure = Figure(figsize=A4)
        verdict, picture, tables = (figure.add_axes(place) for place in PLACES)
        _verdict(verdict, data["metrics"])
        picture.imshow(imread(io.BytesIO(shown["picture"])), interpolation="lanczos")
        _tables(tables, named(data["metrics"], structure_names(data)), length_unit(data["native_fixed_image"]))
        for axis in figure.axes:
            axis.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", dpi=200)
        return {**data, "pdf": buffer.getvalue()}


def _verdict(axis: Any, metrics: Mapping[str, Any]) -> None:
    verdict = metrics["verdict"]
    axis.text(0, 1, "Quality of the registration", fontsize=15, va="top")
    axis.text(0, 0.8, verdict["verdict"], fontsize=13, va="top", color=COLOURS[verdict["verdict"]], weight="bold")
    reasons = verdict["reasons"] or ["Within the limits of all rules that apply."]
    lines = [line for reason in reasons for line in textwrap.wrap(reason, WIDTH, subsequent_indent="  ")]
    axis.text(0, 0.65, "\n".join(lines), fontsize=SMALL, va="top")


def _tables(axis: Any, metrics: Mapping[str, Any], unit: str) -> None:
    both, single = numbers(metrics, unit)
    for places, rows in (((0.0, 0.31, 0.4), [["", "before", "after"], *both]), ((0.55, 0.92), single)):
        left_out = len(rows) - LINES
        shown = rows if left_out <= 0 else [*rows[:LINES], [f"... {left_out} more", *[""] * (len(places) - 1)]]
        for place, cells in zip(places, zip(*shown, strict=True), strict=True):
            axis.text(place, 1, "\n".join(cells), fontsize=SMALL, va="top", linespacing=1.5)
