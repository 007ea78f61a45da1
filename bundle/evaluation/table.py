"""Pairs as rows of a table: written as CSV, and used to compare runs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.evaluation.comparable import comparable
from bundle.evaluation.measures import DSC, FOLDED, IMAGE_DISTANCE, LOSS, MEASURES, NCC, SECONDS, TRE, Measure
from bundle.system import written_whole

ABOUT = ("pair_id", "status", "verdict", "score")
"""Columns that describe a pair, before all others."""
SENTENCES = ("lost_landmarks", "reasons", "error")
"""Columns of words, after all others."""
NAME_WIDTH = 44


def metrics_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One row of ``metrics.csv`` from the metrics of a pair (``metrics.json``)."""
    row: dict[str, Any] = {"pair_id": metrics["pair_id"], "status": "done"}
    verdict = metrics.get("verdict", {})
    row |= {key: verdict[key] for key in ("verdict", "score") if verdict.get(key) is not None}
    for measure in MEASURES.values():
        row |= {measure.columns[when]: value for when, value in measure.of(metrics).items()}
    if verdict:
        row["reasons"] = "; ".join(verdict["reasons"])
    if "lost_landmarks" in metrics:
        row["lost_landmarks"] = "; ".join(f"{name}: {what}" for name, what in metrics["lost_landmarks"].items())
    for structure, entry in DSC.entries(metrics).items():
        row |= {f"{DSC.key}_{structure}_{when}": value for when, value in entry.items()}
    return row


def mean_and_sd(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of ``summary.csv``: ``mean`` and ``sd`` (n - 1; one pair has none) over the pairs that were done."""
    columns = {column for row in rows for column, value in row.items() if isinstance(value, float | int)}
    summary: list[dict[str, Any]] = [{"pair_id": "mean"}, {"pair_id": "sd"}]
    for column in columns:
        values = [row[column] for row in rows if row.get(column) is not None]
        summary[0][column] = float(np.mean(values))
        if len(values) > 1:
            summary[1][column] = float(np.std(values, ddof=1))
    return summary


def table_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The union of the columns of rows, the most important first, words last."""
    measured = [column for measure in MEASURES.values() for column in measure.columns.values()]
    present = dict.fromkeys(column for row in rows for column in row if column not in SENTENCES)
    leading = [column for column in (*ABOUT, *measured) if column in present]
    last = [column for column in SENTENCES if column == "error" or any(column in row for row in rows)]
    return list(dict.fromkeys([*leading, *present, *last]))


def write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV with the given columns; the file appears complete or not at all."""
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def accuracy(rows: Sequence[Mapping[str, Any]]) -> tuple[Measure, ...]:
    """Which accuracy a line for people shows: distance in pixels and NCC, or DSC and TRE, or else NCC alone."""

    def has(*measures: Measure) -> bool:
        return any(measure.columns["after"] in row for measure in measures for row in rows)

    return (IMAGE_DISTANCE, NCC) if has(IMAGE_DISTANCE) else (DSC, TRE) if has(DSC, TRE) else (NCC,)


def headline(row: Mapping[str, Any]) -> str:
    """Short text of a row: its accuracy before and after, folding, seconds, the verdict with its reasons."""
    parts = []
    for measure in (*accuracy([row]), LOSS, FOLDED):
        values = [measure.text(row[column]) for column in measure.columns.values() if column in row]
        if values:
            parts.append(f"{measure.title} {' -> '.join(values)} {measure.unit}".rstrip())
    parts.append(f"{row[SECONDS.key]:.1f} s")
    if "verdict" in row:
        parts.append(f"{row['verdict']}: {row['reasons']}" if row["reasons"] else row["verdict"])
    return ", ".join(parts)


def compare(results: Sequence[str | os.PathLike[str]]) -> str:
    """Table of several runs over the same pairs: not registered, then every run.

    Args:
        results: output folders of inference.

    Returns:
        Text, one line per method: DSC and TRE (mm), or distance (px) and NCC, mean +- SD over the pairs, folded voxels
        (%, mean) and seconds (median). The pairs before registration have one line, or one for each run if they were
        measured otherwise.

    Raises:
        ValueError: when a folder holds no results or the folders hold different pairs.
    """
    if not results:
        raise ValueError("nothing to compare; give output folders of registrations")
    runs = [{metrics["pair_id"]: metrics for metrics in read_metrics(Path(folder))} for folder in results]
    names = [set(run) for run in runs]
    different = sorted(set.union(*names) - set.intersection(*names))
    if different:
        raise ValueError(
            f"the runs {', '.join(map(str, results))} do not hold the same pairs ({different[0]} is not in all of "
            "them); register the same list in each"
        )
    compared, left_out = comparable(runs)
    tables = [[metrics_row(metrics) for metrics in run.values()] for run in compared]
    shown = accuracy([row for rows in tables for row in rows])
    titles = " ".join(f"{f'{measure.title} {measure.unit}'.rstrip():>15s}" for measure in shown)
    called = _names(results)
    lines = [f"{'':{NAME_WIDTH}s} {titles} {'folded %':>9s} {'s/pair':>7s}"]
    starts = [_line("not registered", rows, shown, "before") for rows in tables]
    alike = len(set(starts)) == 1
    if alike:
        lines.append(starts[0])
    for name, run, rows in zip(called, runs, tables, strict=True):
        if not alike:
            lines.append(_line(f"not registered ({name})", rows, shown, "before"))
        steps = next(iter(run.values()))["steps"]
        method = f"after {steps} steps" if steps else "0 steps"
        lines.append(_line(f"{method} ({name})", rows, shown, "after"))
    if not alike:
        lines.append("the runs have other grids, alignments or labels: compare each with its own start")
    return "\n".join([*lines, *left_out])


def _names(folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Names of folders, with as many of those above as tell them apart."""
    paths = [Path(folder).resolve() for folder in folders]
    deepest = max(len(path.parts) for path in paths)
    depths = (n for n in range(1, deepest) if len({path.parts[-n:] for path in paths}) == len(set(paths)))
    depth = next(depths, deepest)
    return ["/".join(path.parts[-depth:]) for path in paths]


def read_table(folder: Path) -> list[dict[str, str]]:
    """Rows of the ``metrics.csv`` of a run, as text; none if it is not there."""
    table = folder / "metrics.csv"
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Metrics of every pair that was registered in a folder of inference.

    If its table is there, pairs that are not in it are of an earlier run over another list, and do not count; nor do
    results of an earlier run whose pairs have failed since.

    Raises:
        ValueError: when it holds none.
    """
    run = [json.loads(path.read_text()) for path in sorted(folder.glob("[!.]*/metrics.json"))]
    rows = read_table(folder)
    if rows:
        status = {row["pair_id"]: row["status"] for row in rows}
        run = [metrics for metrics in run if status.get(metrics["pair_id"]) == "done"]
    if not run:
        failed = next((row["error"] for row in rows if row["status"] == "failed"), "")
        why = f", every pair failed ({failed})" if failed else " (no */metrics.json); run inference into it first"
        raise ValueError(f"{folder} holds no results{why}")
    return run


def _line(name: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[Measure], when: str) -> str:
    def spread(column: str) -> str:
        values = [row[column] for row in rows if column in row]
        sd = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        return f"{np.mean(values):.3f}{sd}" if values else "-"

    folded, seconds = "-", "-"
    if when == "after":
        folded = f"{np.mean([row[FOLDED.key] for row in rows]):.2f}"
        seconds = f"{np.median([row[SECONDS.key] for row in rows]):.1f}"
    spreads = " ".join(f"{spread(measure.columns[when]):>15s}" for measure in shown)
    return f"{name:{NAME_WIDTH}s} {spreads} {folded:>9s} {seconds:>7s}"
