"""Pairs as rows of a table, written as CSV, and runs compared by them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.system import written_whole

LEADING = (
    "pair_id",
    "status",
    "verdict",
    "score",
    "dsc_before",
    "dsc_after",
    "tre_rms_before_mm",
    "tre_rms_after_mm",
    "warped_centroid_rms_before_mm",
    "warped_centroid_rms_after_mm",
    "centre_before_mm",
    "centre_after_mm",
    "hd95_before_mm",
    "hd95_after_mm",
    "distance_before_px",
    "distance_after_px",
    "distance_grid_before_px",
    "distance_grid_after_px",
    "distance_fixed_grid_before_px",
    "distance_fixed_grid_after_px",
    "ncc_before",
    "ncc_after",
    "similarity_before",
    "similarity_after",
    "folded_percent",
    "network_folded_percent",
    "inverse_consistency_mm",
    "self_displacement_mean_mm",
    "self_displacement_max_mm",
)
SENTENCES = ("lost_landmarks", "reasons", "error")
"""Columns of words, behind all others."""
# Of ``metrics.json``, before and after registration -> columns.
VALUES = {
    "tre_rms_mm": "tre_rms_{}_mm",
    "warped_centroid_rms_mm": "warped_centroid_rms_{}_mm",
    "distance_px": "distance_{}_px",
    "distance_grid_px": "distance_grid_{}_px",
    "distance_fixed_grid_px": "distance_fixed_grid_{}_px",
    "ncc": "ncc_{}",
    "similarity": "similarity_{}",
}
# Of every structure, before and after registration -> columns of their means.
STRUCTURES = {"hd95_mm": "hd95_{}_mm", "centre_mm": "centre_{}_mm"}
# Numbers that not every run has: no steps, a field that folds everywhere, results older than the metric.
OPTIONAL = ("log_jacobian_sd", "network_folded_percent", "inverse_consistency_mm", "seconds_per_step")
# Accuracy for people: title, column, unit and digits in a sentence.
Shown = tuple[str, str, str, int]
NCC: Shown = ("NCC", "ncc_{}", "", 3)
VOLUMES: tuple[Shown, ...] = (("DSC", "dsc_{}", "", 3), ("TRE", "tre_rms_{}_mm", "mm", 2))
PLANAR: tuple[Shown, ...] = (("distance", "distance_{}_px", "px", 2), NCC)

NAME_WIDTH = 44


def metrics_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One row of ``metrics.csv`` from the metrics of a pair (``metrics.json``)."""
    row: dict[str, Any] = {"pair_id": metrics["pair_id"], "status": "done"}
    for when in ("before", "after"):
        scores = [entry[when] for entry in metrics.get("dsc", {}).values() if entry[when] is not None]
        if scores:
            row[f"dsc_{when}"] = float(np.mean(scores))
        row |= {column.format(when): metrics[key][when] for key, column in VALUES.items() if key in metrics}
    for key, column in STRUCTURES.items():
        # A structure that registration loses has no distance; its absence must not improve the mean.
        distances = [entry for entry in metrics.get(key, {}).values() if None not in entry.values()]
        for when in ("before", "after") if distances else ():
            row[column.format(when)] = float(np.mean([entry[when] for entry in distances]))
    row["folded_percent"] = metrics["folded_percent"]
    # Results older than the choice of the best state have the field of the last one.
    after = metrics.get("adaptation", {}).get("best_loss", metrics["loss"][-1])
    row["loss_before"], row["loss_after"] = metrics["loss"][0], after
    row["seconds"] = sum(metrics["seconds"].values())
    optional = {column: metrics.get(column) for column in OPTIONAL}
    optional["seconds_registration"] = metrics["seconds"].get("registration")
    optional["score"] = metrics.get("verdict", {}).get("score")
    optional |= {f"self_displacement_{key}_mm": value for key, value in metrics.get("self_displacement_mm", {}).items()}
    row |= {column: value for column, value in optional.items() if value is not None}
    if "verdict" in metrics:
        row |= {"verdict": metrics["verdict"]["verdict"], "reasons": "; ".join(metrics["verdict"]["reasons"])}
    if "lost_landmarks" in metrics:
        row["lost_landmarks"] = "; ".join(f"{name}: {what}" for name, what in metrics["lost_landmarks"].items())
    for structure, entry in metrics.get("dsc", {}).items():
        row |= {f"dsc_{structure}_{when}": value for when, value in entry.items()}
    return row


def mean_and_sd(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of ``summary.csv``: ``mean`` and ``sd`` (n - 1) over the numbers of the pairs that were done."""
    columns = {column for row in rows for column, value in row.items() if isinstance(value, float | int)}
    summary: list[dict[str, Any]] = [{"pair_id": "mean"}, {"pair_id": "sd"}]
    for column in columns:
        values = [row[column] for row in rows if row.get(column) is not None]
        summary[0][column] = float(np.mean(values))
        summary[1][column] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return summary


def table_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The union of the columns of rows, those that matter most first, those of words last."""
    present = dict.fromkeys(column for row in rows for column in row if column not in SENTENCES)
    last = [column for column in SENTENCES if column == "error" or any(column in row for row in rows)]
    return list(dict.fromkeys([*(column for column in LEADING if column in present), *present, *last]))


def write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV under some columns; the file appears complete or not at all."""
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def accuracy(rows: Sequence[Mapping[str, Any]]) -> tuple[Shown, ...]:
    """Which accuracy a line for people has: distance in pixels and NCC, or DSC and TRE, or else NCC alone."""
    present = {column for row in rows for column, value in row.items() if value is not None}
    if "distance_after_px" in present:
        return PLANAR
    return VOLUMES if present & {"dsc_after", "tre_rms_after_mm"} else (NCC,)


def headline(row: Mapping[str, Any]) -> str:
    """Short text of a row: its accuracy before and after, folding, seconds, the verdict with its reasons."""
    parts = []
    for title, column, unit, digits in accuracy([row]):
        before, after = (row.get(column.format(when)) for when in ("before", "after"))
        if None not in (before, after):
            parts.append(f"{title} {before:.{digits}f} -> {after:.{digits}f} {unit}".rstrip())
    parts.append(f"loss {row['loss_before']:.4f} -> {row['loss_after']:.4f}")
    parts.append(f"folded {row['folded_percent']:.2f} %")
    parts.append(f"{row['seconds']:.1f} s")
    if "verdict" in row:
        parts.append(f"{row['verdict']}: {row['reasons']}" if row["reasons"] else row["verdict"])
    return ", ".join(parts)


def compare(results: Sequence[str | os.PathLike[str]]) -> str:
    """Table of several runs over the same pairs: not registered, then every run.

    Args:
        results: output folders of inference.

    Returns:
        Text, one line per method: DSC and TRE (mm), or distance (px) and NCC, folded voxels (%) and seconds, mean +- SD
        over pairs.

    Raises:
        ValueError: when a folder holds no results or the folders hold different pairs.
    """
    runs = [read_metrics(Path(folder)) for folder in results]
    if len({tuple(sorted(metrics["pair_id"] for metrics in run)) for run in runs}) != 1:
        raise ValueError(
            f"the runs {', '.join(map(str, results))} do not hold the same pairs, so they cannot be compared"
        )
    tables = [[metrics_row(metrics) for metrics in run] for run in runs]
    shown = accuracy([row for rows in tables for row in rows])
    titles = " ".join(f"{f'{title} {unit}'.rstrip():>15s}" for title, _, unit, _ in shown)
    columns = [column for _, column, _, _ in shown]
    lines = [f"{'':{NAME_WIDTH}s} {titles} {'folded %':>9s} {'s/pair':>7s}"]
    lines.append(_line("not registered", tables[0], columns, "before"))
    for folder, run, rows in zip(results, runs, tables, strict=True):
        steps = run[0]["steps"]
        method = "meta-learned start, 0 steps" if steps == 0 else f"after {steps} steps"
        lines.append(_line(f"{method} ({Path(folder).name})", rows, columns, "after"))
    return "\n".join(lines)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Metrics of every pair in a folder of inference.

    Raises:
        ValueError: when it holds none.
    """
    run = [json.loads(path.read_text()) for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not run:
        raise ValueError(f"{folder} holds no results (no */metrics.json); run inference into it first")
    return run


def _line(name: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[str], when: str) -> str:
    def spread(column: str) -> str:
        values = [row[column] for row in rows if row.get(column) is not None]
        return f"{np.mean(values):.3f} +- {np.std(values, ddof=min(1, len(values) - 1)):.3f}" if values else "-"

    folded, seconds = "-", "-"
    if when == "after":
        folded = f"{np.mean([row['folded_percent'] for row in rows]):.2f}"
        seconds = f"{np.median([row['seconds'] for row in rows]):.1f}"
    spreads = " ".join(f"{spread(column.format(when)):>15s}" for column in shown)
    return f"{name:{NAME_WIDTH}s} {spreads} {folded:>9s} {seconds:>7s}"
