"""The quality of a registered pair on one page of PDF, for archives that keep no HTML."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib
from monai.transforms import Transform

from bundle.evaluation.page import numbers
from bundle.evaluation.quality import length_unit
from bundle.evaluation.report import PairPictured, pyplot

A4 = (8.27, 11.69)
"""Inches."""
COLOURS = {"good": "#1a7f37", "check": "#a85400", "failed": "#c62828"}
WIDTH = 100
"""Letters on a line."""


class QualityPdfd(Transform):
    """One page of PDF under ``pdf``: the verdict with its reasons, the picture of the pair, the numbers.

    It names neither the pair nor its files: in an archive the object around it says whose it is.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw one pair after ``QualityVerdictd``."""
        shown = data if "picture" in data else PairPictured()(data)
        with matplotlib.rc_context({"font.size": 8}):
            figure = pyplot.figure(figsize=A4)
            parts = figure.subplots(3, 1, gridspec_kw={"height_ratios": (1.5, 4, 6), "hspace": 0.05})
            for part in parts:
                part.set_axis_off()
            _verdict(parts[0], data["metrics"])
            parts[1].imshow(pyplot.imread(io.BytesIO(shown["picture"])), aspect="equal")
            _tables(parts[2], data["metrics"], length_unit(data["native_fixed_image"]))
            buffer = io.BytesIO()
            figure.savefig(buffer, format="pdf")
            pyplot.close(figure)
        return {**data, "pdf": buffer.getvalue()}


def _verdict(axis: Any, metrics: Mapping[str, Any]) -> None:
    verdict = metrics["verdict"]
    axis.text(0, 1, "Quality of the registration", fontsize=15, va="top")
    axis.text(0, 0.72, verdict["verdict"], fontsize=13, va="top", color=COLOURS[verdict["verdict"]], weight="bold")
    reasons = verdict["reasons"] or ["Within the limits of all rules that apply."]
    lines = [line for reason in reasons for line in textwrap.wrap(reason, WIDTH, subsequent_indent="  ")]
    axis.text(0, 0.5, "\n".join(lines), va="top")


def _tables(axis: Any, metrics: Mapping[str, Any], unit: str) -> None:
    both, single = numbers(metrics, unit)
    columns = (([0.0, 0.3, 0.4], [["", "before", "after"], *both]), ([0.55, 0.9], single))
    for places, rows in columns:
        for place, cells in zip(places, zip(*rows, strict=True), strict=True):
            axis.text(place, 0.97, "\n".join(cells), va="top", linespacing=1.5)
