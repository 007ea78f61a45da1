"""The quality of a registered pair on one page of PDF, for archives that keep no HTML."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Hashable, Mapping, Sequence
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
SMALL, PITCH = 8, 10
"""Size of letters and distance of lines in points."""
WIDTH, REASONS = 115, 10
"""Letters on a line of the verdict, and lines of its reasons, above the picture."""
LINES = 32
"""Lines of a table, down to the end of the page."""
BOTH, SINGLE = ((0.0, 0.41, 0.48), 44), ((0.56, 0.94), 40)
"""Where the columns of a table begin, as shares of its place, and letters on a line of the first."""


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
    lines = [[line] for reason in reasons for line in textwrap.wrap(reason, WIDTH, subsequent_indent="  ")]
    _column(axis, 0, 0.6, [line for (line,) in _as_fits(lines, REASONS)])


def _tables(axis: Any, metrics: Mapping[str, Any], unit: str) -> None:
    both, single = numbers(metrics, unit)
    for (places, width), rows in ((BOTH, [["", "before", "after"], *both]), (SINGLE, single)):
        lines = _as_fits([line for row in rows for line in _wrapped(row, width)], LINES)
        for place, cells in zip(places, zip(*lines, strict=True), strict=True):
            _column(axis, place, 1, cells)


def _wrapped(row: Sequence[str], width: int) -> list[list[str]]:
    """A row as lines, where its name is longer than one; the values are on the first."""
    name, *values = row
    first, *rest = textwrap.wrap(name, width) or [""]
    return [[first, *values], *(["  " + line, *[""] * len(values)] for line in rest)]


def _as_fits(lines: list[list[str]], most: int) -> list[list[str]]:
    """Lines of a table, the last of which says how many are left out."""
    left_out = len(lines) - most + 1
    return lines if left_out <= 1 else [*lines[: most - 1], [f"... {left_out} more", *[""] * (len(lines[0]) - 1)]]


def _column(axis: Any, left: float, top: float, lines: Sequence[str]) -> None:
    pitch = PITCH / 72 / (axis.get_position().height * A4[1])
    for number, line in enumerate(lines):
        # Names of structures and landmarks may hold what matplotlib takes for formulas.
        axis.text(left, top - number * pitch, line, fontsize=SMALL, va="baseline", parse_math=False)
