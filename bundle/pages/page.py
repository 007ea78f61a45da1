"""The quality page of a registered pair: one HTML file that opens from disk."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from monai.transforms import Transform

from bundle.data import by_name
from bundle.evaluation.measures import MEASURES, numbered
from bundle.evaluation.quality import length_unit
from bundle.pages.drawing import FIXED, FOLDED, MOVING, colour_bar, deformed_grid, loss_curve, outline, panel, picture
from bundle.pages.explorer import explored
from bundle.pages.markup import ABSENT, render, rules_shown, score_text
from bundle.pages.slices import ShownSlice, shown_slices

MOST_STRETCH = 2.0
"""Largest log-Jacobian on the scale: e^2, seven times the volume."""
Row = Callable[[ShownSlice], Iterable[Markup]]
THUMBNAIL = 100
"""Pixels along the longer side."""


class QualityPaged(Transform):
    """The quality page of a registered pair as HTML bytes under ``page``, and a small picture under ``thumbnail``.

    The page shows three orthogonal views through most of the label, or through the middle: both images, the warped one,
    a checkerboard and differences, contours of labels before and after; the deformed grid, the displacement and the
    log-Jacobian of the registration without the initial alignment; the loss, the metrics, and the verdict with its
    reasons. With scripts, people can also look through the volumes (``explored``). The page refers to no other file,
    and needs no network.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the page of one pair after ``QualityVerdictd``."""
        slices = shown_slices(data)
        names = structure_names(data)
        metrics = named(data["metrics"], names)
        stretch = _stretch(slices)
        unit = length_unit(data["native_fixed_image"])
        both, single = numbers(metrics, unit)
        losses = metrics["loss"]
        html = render(
            "pair.html",
            title=f"Quality of {metrics['pair_id']}",
            **_verdict_part(metrics),
            unit=unit,
            colours={"fixed": FIXED, "moving": MOVING, "folded": FOLDED},
            images=_images_part(slices),
            deformation=_deformation_part(slices, stretch, metrics, unit),
            explored=explored(data, metrics["largest_displacement_mm"], stretch, names),
            distance=_distance,
            both=both,
            single=single,
            curve=loss_curve(losses) if len(losses) > 1 else None,
            loss=f"{losses[0]:.4g}",
            lost=(metrics.get("lost_landmarks") or {}).items(),
        )
        return {**data, "page": html.encode(), "thumbnail": thumbnail(slices[0])}


def structure_names(data: Mapping[Hashable, Any]) -> dict[str, str]:
    """Names of the structures of a pair by their numbers in the fixed label, if its list has names."""
    # If structures correspond by number, the same number has the same name in both labels.
    sides = ("fixed",) if by_name(data) else ("moving", "fixed")
    return {
        str(int(number)): str(name) for side in sides for name, number in (data.get(f"{side}_structures") or {}).items()
    }


def named(metrics: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Metrics with structures under their names instead of their numbers."""
    return {
        key: {names.get(name, name): entry for name, entry in value.items()} if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


def thumbnail(shown: ShownSlice) -> Markup:
    """A coarse checkerboard of a slice."""
    board, view = shown.checkerboard(), shown.view
    coarse = -(-max(board.shape) // THUMBNAIL)
    small = picture(board[::coarse, ::coarse])
    return panel(view, small, f"checkerboard of fixed and warped, {view.name}", _contours(shown, "warped"))


def _verdict_part(metrics: Mapping[str, Any]) -> dict[str, Any]:
    verdict = metrics["verdict"]
    return {
        "verdict": verdict,
        "score": score_text(verdict),
        "judged": sum(rule["value"] is not None for rule in verdict["rules"]),
        "steps": len(metrics["loss"]) - 1,
        "seconds": f"{sum(metrics['seconds'].values()):.1f}",
        "device": metrics["device"],
        "rules": rules_shown(verdict["rules"]),
    }


def _contours(shown: ShownSlice, name: str) -> list[Markup]:
    colours = {"fixed": FIXED} if name == "fixed" else {"fixed": FIXED, name: MOVING}
    return [
        outline(shown.view, mask, colour)
        for label, colour in colours.items()
        if name in shown.labels
        for mask in shown.labels.get(label, [])
    ]


def _images_part(slices: list[ShownSlice]) -> dict[str, Any]:
    differences = np.concatenate(
        [np.abs(shown.difference(name)).ravel() for shown in slices for name in ("moving", "warped")]
    )
    most = float(np.quantile(differences, 0.995)) or 1.0

    def row(shown: ShownSlice) -> Iterable[Markup]:
        view = shown.view
        for name in ("fixed", "moving", "warped"):
            image = picture(view.pixels(shown.images[name]))
            yield panel(view, image, f"{name} image, {view.name}", _contours(shown, name))
        yield panel(view, picture(shown.checkerboard()), f"checkerboard of fixed and warped, {view.name}")
        for name, when in (("moving", "before"), ("warped", "after")):
            image = picture(view.pixels(shown.difference(name)), "RdBu_r", -most, most)
            yield panel(view, image, f"difference {when} registration, {view.name}")

    titles = [
        "fixed",
        "moving, initially aligned",
        "warped",
        "fixed and warped",
        "difference before",
        "difference after",
    ]
    return {
        "grid": _panels(titles, slices, row),
        "bar": colour_bar("RdBu_r", -most, most, "difference (each image 0 to 1)"),
        "contours": bool(slices[0].labels),
    }


def _stretch(slices: list[ShownSlice]) -> float:
    """The log-Jacobian at the end of its scale."""
    found = np.abs(np.concatenate([shown.log_jacobian[~shown.folded] for shown in slices]))
    return min(MOST_STRETCH, max(0.1, float(np.quantile(found, 0.995)))) if found.size else 1.0


def _deformation_part(
    slices: list[ShownSlice], stretch: float, metrics: Mapping[str, Any], unit: str
) -> dict[str, Any]:
    largest = metrics["largest_displacement_mm"]
    distances = [deformed_grid(shown.view, shown.right, shown.down)[1] for shown in slices]

    def row(shown: ShownSlice) -> Iterable[Markup]:
        view = shown.view
        lines, _ = deformed_grid(view, shown.right, shown.down)
        yield panel(view, picture(view.pixels(shown.images["moving"])), f"deformation grid, {view.name}", [lines])
        yield panel(view, picture(view.pixels(shown.length), "viridis", 0, largest), f"displacement, {view.name}")
        # Where the field folds there is no logarithm; the mark covers what is drawn there.
        image = picture(view.pixels(np.nan_to_num(shown.log_jacobian)), "PuOr", -stretch, stretch)
        text = f"log-Jacobian, {view.name}, {int(shown.folded.sum())} voxels fold"
        yield panel(view, image, text, [outline(view, shown.folded, FOLDED, filled=True)])

    def note(shown: ShownSlice) -> str:
        return f"{int(shown.folded.sum())} voxels fold here" if shown.view.count > 1 else ""

    titles = ["deformation grid on moving", "displacement", "log-Jacobian"]
    return {
        "grid": _panels(titles, slices, row, note),
        "bars": [
            colour_bar("viridis", 0, largest, f"displacement ({unit})"),
            colour_bar("PuOr", -stretch, stretch, "log-Jacobian (0: volume kept)"),
        ],
        "distances": " / ".join(f"{distance:g}" for distance in dict.fromkeys(distances)),
        "folded": metrics["folded_voxels"],
        "folded_percent": f"{metrics['folded_percent']:.2f}",
    }


def _panels(
    titles: list[str], slices: list[ShownSlice], row: Row, note: Callable[[ShownSlice], str] = lambda shown: ""
) -> dict[str, Any]:
    """Rows of panels at the same scale in mm, the first row with titles; panels of a single view are larger."""
    widest = max(shown.view.size[0] for shown in slices)
    columns = len(titles) if len(slices) > 1 else 3
    rows = [
        {
            "name": shown.view.name if shown.view.letters else "",
            "notes": [part for part in (shown.view.position, note(shown)) if part],
            "share": f"{100 * shown.view.size[0] / widest:.1f}",
            "panels": list(row(shown)),
        }
        for shown in slices
    ]
    return {"titles": titles, "rows": rows, "columns": columns, "widest": "1fr" if columns > 3 else "21rem"}


def numbers(metrics: Mapping[str, Any], unit: str) -> tuple[list[list[str]], list[list[str]]]:
    """What was measured, as text.

    Args:
        metrics: metrics of a pair after ``QualityVerdictd``.
        unit: unit of lengths.

    Returns:
        Rows of values before and after registration, and rows of single values and of structures without any.
    """
    both: list[list[str]] = []
    single: list[list[str]] = []
    for measure in MEASURES.values():
        for structure, values in measure.entries(metrics).items():
            if set(values.values()) != {None}:
                shown = [ABSENT if value is None else measure.text(value) for value in values.values()]
                (both if measure.has_before else single).append([measure.label(unit, structure), *shown])
    missing = metrics.get("missing_structures") or {}
    single += [[f"{numbered('structure', name)} {what}", ABSENT] for name, what in missing.items()]
    single += [[f"seconds of {stage}", f"{value:.2f}"] for stage, value in metrics["seconds"].items()]
    return both, single


def _distance(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"
