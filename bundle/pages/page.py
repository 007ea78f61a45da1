"""The quality page of a registered pair: one HTML file that opens from disk."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from monai.transforms import Transform

from bundle.evaluation.measures import MEASURES
from bundle.evaluation.quality import length_unit
from bundle.pages.drawing import FIXED, FOLDED, MOVING, colour_bar, deformed_grid, loss_curve, outline, panel, picture
from bundle.pages.markup import ABSENT, STYLE, Markup, badge, page, rules_table, table
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
    log-Jacobian of the registration itself, the initial alignment taken out; the loss, the metrics, and the verdict
    with its reasons. It refers to no other file.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the page of one pair after ``QualityVerdictd``."""
        slices, metrics = shown_slices(data), data["metrics"]
        unit = length_unit(data["native_fixed_image"])
        body = [
            _verdict_part(metrics),
            _images_part(slices),
            _deformation_part(slices, metrics, unit),
            _numbers_part(metrics, unit),
            _rules_part(metrics),
        ]
        html = page(f"Quality of {metrics['pair_id']}", "\n".join(body), STYLE)
        return {**data, "page": html.encode(), "thumbnail": thumbnail(slices[0])}


def thumbnail(shown: ShownSlice) -> Markup:
    """A coarse checkerboard of a slice."""
    board, view = shown.checkerboard(), shown.view
    coarse = -(-max(board.shape) // THUMBNAIL)
    small = picture(board[::coarse, ::coarse])
    return panel(view, small, f"checkerboard of fixed and warped, {view.name}", _contours(shown, "warped"))


def _verdict_part(metrics: Mapping[str, Any]) -> str:
    verdict = metrics["verdict"]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    judged = sum(rule["value"] is not None for rule in verdict["rules"])
    text = f"<ul>{reasons}</ul>" if reasons else f"<p>Within the limits of all {judged} rules that apply.</p>"
    seconds = sum(metrics["seconds"].values())
    return (
        f"<p>{badge(verdict['verdict'])} {score_text(verdict)}{len(metrics['loss']) - 1} gradient steps, "
        f"{seconds:.1f} s on {escape(metrics['device'])}</p>{text}"
    )


def score_text(verdict: Mapping[str, Any]) -> str:
    """The score of a verdict for the head of a page; nothing where there is none."""
    return "" if verdict.get("score") is None else f"score {verdict['score']:.2f}, "


def _contours(shown: ShownSlice, name: str) -> list[str]:
    colours = {"fixed": FIXED} if name == "fixed" else {"fixed": FIXED, name: MOVING}
    return [
        outline(shown.view, mask, colour)
        for label, colour in colours.items()
        if name in shown.labels
        for mask in shown.labels.get(label, [])
    ]


def _images_part(slices: list[ShownSlice]) -> str:
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
    contours = (
        f' Contours: <span class="key" style="color:{FIXED}">fixed</span>, '
        f'<span class="key" style="color:{MOVING}">moving or warped</span>.'
        if slices[0].labels
        else ""
    )
    return (
        f"<h2>Images</h2>{_panels(titles, slices, row)}"
        f'<div class="bars">{colour_bar("RdBu_r", -most, most, "difference (each image 0 to 1)")}</div>'
        f'<p class="small">{contours} A difference says little where the two images are of different kinds.</p>'
    )


def _deformation_part(slices: list[ShownSlice], metrics: Mapping[str, Any], unit: str) -> str:
    largest = metrics["largest_displacement_mm"]
    stretch = np.abs(np.concatenate([shown.log_jacobian[~shown.folded] for shown in slices]))
    most = min(MOST_STRETCH, max(0.1, float(np.quantile(stretch, 0.995)))) if stretch.size else 1.0
    distances = [deformed_grid(shown.view, shown.right, shown.down)[1] for shown in slices]

    def row(shown: ShownSlice) -> Iterable[Markup]:
        view = shown.view
        lines, _ = deformed_grid(view, shown.right, shown.down)
        yield panel(view, picture(view.pixels(shown.images["moving"])), f"deformation grid, {view.name}", [lines])
        yield panel(view, picture(view.pixels(shown.length), "viridis", 0, largest), f"displacement, {view.name}")
        # Where the field folds there is no logarithm; what is drawn there lies under the mark.
        image = picture(view.pixels(np.nan_to_num(shown.log_jacobian)), "PuOr", -most, most)
        text = f"log-Jacobian, {view.name}, {int(shown.folded.sum())} voxels fold"
        yield panel(view, image, text, [outline(view, shown.folded, FOLDED, filled=True)])

    def note(shown: ShownSlice) -> str:
        return f"{int(shown.folded.sum())} voxels fold here" if shown.view.count > 1 else ""

    titles = ["deformation grid on moving", "displacement", "log-Jacobian"]
    bars = colour_bar("viridis", 0, largest, f"displacement ({unit})") + colour_bar(
        "PuOr", -most, most, "log-Jacobian (0: volume kept)"
    )
    return (
        f"<h2>Deformation</h2>{_panels(titles, slices, row, note)}"
        f'<div class="bars">{bars}</div>'
        f'<p class="small">Without the initial alignment. The grid shows where straight lines of the fixed image, '
        f"{' / '.join(f'{distance:g}' for distance in dict.fromkeys(distances))} {unit} apart, come from in the moving "
        f'image. <span class="key" style="color:{FOLDED}">Folded</span>: {metrics["folded_voxels"]} voxels of the '
        f"fixed image, {metrics['folded_percent']:.2f} %.</p>"
    )


def _panels(
    titles: list[str], slices: list[ShownSlice], row: Row, note: Callable[[ShownSlice], str] = lambda shown: ""
) -> str:
    """Rows of panels, all at one scale in mm, the first below their titles; those of a single view are larger."""
    widest = max(shown.view.size[0] for shown in slices)
    columns = len(titles) if len(slices) > 1 else 3
    cells = []
    for shown in slices:
        view = shown.view
        about = ", ".join(part for part in (f"<b>{view.name}</b>", view.position, note(shown)) if part)
        cells.append(f'<div class="plane">{about}</div>' if view.letters else "")
        share = 100 * view.size[0] / widest
        for title, drawn in zip(titles, row(shown), strict=True):
            head = f'<div class="head">{title}</div>' if shown is slices[0] else ""
            cells.append(f'<div>{head}<div style="width:{share:.1f}%">{drawn}</div></div>')
    style = f"grid-template-columns: repeat({columns}, minmax(7rem, {'1fr' if columns > 3 else '21rem'}))"
    return f'<div class="wide"><div class="panels" style="{style}">{"".join(cells)}</div></div>'


def numbers(metrics: Mapping[str, Any], unit: str) -> tuple[list[list[str]], list[list[str]]]:
    """What was measured, as text.

    Args:
        metrics: of a pair after ``QualityVerdictd``.
        unit: of lengths.

    Returns:
        Rows of what there is before and after registration, and rows of single values.
    """
    both: list[list[str]] = []
    single: list[list[str]] = []
    for measure in MEASURES.values():
        for structure, values in measure.entries(metrics).items():
            if set(values.values()) != {None}:
                shown = [ABSENT if value is None else measure.text(value) for value in values.values()]
                (both if measure.has_before else single).append([measure.label(unit, structure), *shown])
    single += [[f"seconds of {stage}", f"{value:.2f}"] for stage, value in metrics["seconds"].items()]
    return both, single


def _numbers_part(metrics: Mapping[str, Any], unit: str) -> str:
    losses = metrics["loss"]
    curve = loss_curve(losses) if len(losses) > 1 else f"<p>No step was taken; the loss is {losses[0]:.4g}.</p>"
    both, single = numbers(metrics, unit)
    return (
        f'<h2>Numbers</h2><div class="side"><div>{table(["", "before", "after"], both)}</div>'
        f"<div>{table(['', 'value'], single)}</div><div><h3>Loss</h3>{curve}{_lost_part(metrics)}</div></div>"
    )


def _lost_part(metrics: Mapping[str, Any]) -> str:
    """Which landmarks are not what the means are over, and why."""
    lost = metrics.get("lost_landmarks")
    items = "".join(f"<li>{escape(name)}: {escape(what)}</li>" for name, what in (lost or {}).items())
    return f"<h3>Landmarks missing, vanished or outside</h3><ul>{items}</ul>" if lost else ""


def _rules_part(metrics: Mapping[str, Any]) -> str:
    return f"<h2>Rules of the verdict</h2>{rules_table(metrics['verdict']['rules'])}"
