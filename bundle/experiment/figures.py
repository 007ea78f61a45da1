"""Which figures an experiment has, and what their captions say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bundle.evaluation.measures import LOSS, Measure
from bundle.experiment.curves import FILES, Panels, boxplots, method_curves, method_slices, read_volumes
from bundle.experiment.planar_figures import POINT_FILES, is_planar, overlays, read_planar
from bundle.experiment.results import Results, column, done, median_pair, numbers

Figures = dict[str, tuple[Figure, str]]

OVER = {"steps": "test-time steps", "epochs": "epochs of training from each start"}
SLICES = (
    "Left: fixed image, moving image, gland before registration. By method: warped image, checkerboard of warped and "
    "fixed, gland (warped red, fixed green), length of the DDF with arrows to scale. The patient's left is on the "
    "right."
)
OVERLAYS = (
    "As in Figure 4 of Park et al. 2021, the warped image is purple (red and blue), the fixed image green, their "
    "overlap white. Points: green those of the moving image through the inverse of the field, yellow the fixed ones."
)


def experiment_figures(results: Results) -> Figures:
    """Draw the figures of an evaluation for which its runs have numbers and images.

    Returns:
        Name of the file -> figure and caption: ``figure_2_<measure>`` and ``figure_3_<measure>`` of the first two
        measures; ``figure_4_slices``, or ``figure_4_overlays`` for planar images, of one pair picked by rule; and the
        curves, ``steps`` or ``epochs``.
    """
    return _boxplots(results) | _example(results) | _curves(results)


def _boxplots(results: Results) -> Figures:
    drawn: Figures = {}
    for number, measure in enumerate(results.evaluation.measures[:2], start=2):
        if measure in results.series:
            values = {name: numbers(values) for name, values in results.series[measure].items()}
            drawn[f"figure_{number}_{measure.stem}"] = (
                boxplots(values, measure.label()),
                f"Figure {number}. Tukey's boxplots of {measure.label()} for all methods: quartiles and median, "
                "whiskers at the 10th and 90th percentiles, a dot for every pair beyond them, a diamond at the mean.",
            )
    return drawn


def _example(results: Results) -> Figures:
    """Figure 4, if the reference's datalist says which images the example pair has."""
    pair, measure = median_pair(results)
    folders = {name: Path(folder) for name, folder in results.evaluation.runs.items()}
    files = _files(results, folders[results.reference] / "datalist.json", pair)
    if not files:
        return {}
    metrics = json.loads((folders[results.reference] / pair / "metrics.json").read_text(encoding="utf-8"))
    registered = {name: folders[name] / pair for name, run in results.runs.items() if pair in done(run)}
    alignment = np.asarray(metrics["initial_alignment_mm"])
    if is_planar(files["fixed_image"]):
        drawn = overlays(*read_planar(files, alignment, registered))
        kind, name, text = "Overlays", "figure_4_overlays", OVERLAYS
    else:
        drawn = method_slices(*read_volumes({"pair_id": pair, **files}, alignment, registered))
        kind, name, text = "Axial slices", "figure_4_slices", SLICES
    row = results.runs[results.reference][pair]
    before, after = (measure.text(row[name]) for name in measure.columns.values())
    caption = (
        f"Figure 4. {kind} of {pair}, picked by rule and not by eye: its change of {measure.label()} by "
        f"{results.reference}, from {before} to {after}, is the median of all pairs. {text}"
    )
    return {name: (drawn, caption)}


def _files(results: Results, datalist: Path, pair: str) -> dict[str, Path]:
    """Files of a pair by their keys; none if their place is not known."""
    root = results.evaluation.dataset_dir
    listed = json.loads(datalist.read_text(encoding="utf-8"))["test"] if datalist.is_file() else []
    keys = (*FILES, *POINT_FILES)
    files = {
        key: (root or Path()) / entry[key]
        for entry in listed
        if entry["pair_id"] == pair
        for key in keys
        if key in entry
    }
    known = root is not None or all(path.is_absolute() for path in files.values())
    return files if known else {}


def _curves(results: Results) -> Figures:
    curves = results.evaluation.curves
    shown = [measure for measure in results.evaluation.measures[:2] if measure in results.series]
    panels: Panels = {}
    levels: dict[str, float] = {}
    for measure, title in (*((measure, measure.label()) for measure in shown), (LOSS, f"{LOSS.label()} (test pairs)")):
        pairs = _common(results, measure)
        for start, runs in results.curves.items():
            for number, run in runs.items():
                values = numbers(column(run, measure, pairs))
                if values:
                    panels.setdefault(start, {}).setdefault(title, {})[number] = values
        level = numbers(column(results.runs[curves.level], measure, pairs)) if curves.level else []
        if level:
            levels[title] = float(np.mean(level))
    if not panels:
        return {}
    dotted = f" Dotted: the mean of {curves.level}." if curves.level else ""
    caption = (
        f"Mean over the pairs after each number of {OVER[curves.over]}, in a band of ± its standard error; a pair that "
        f"has no value at one point counts at none. The loss is that of the test pairs after registration.{dotted}"
    )
    return {curves.over: (method_curves(panels, OVER[curves.over], levels), caption)}


def _common(results: Results, measure: Measure) -> list[str]:
    """Pairs with a value at every point of the curves that has any, and by the method of their level."""
    level = results.evaluation.curves.level
    runs = [run for each in results.curves.values() for run in each.values()]
    runs += [results.runs[level]] if level else []
    measured = [run for run in runs if numbers(column(run, measure, results.pairs))]
    return [pair for pair in results.pairs if all(numbers(column(run, measure, [pair])) for run in measured)]
