"""The numbers of an experiment: methods compared over the same pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bundle.evaluation.comparable import comparable
from bundle.evaluation.measures import LOSS, MEASURES, WHEN, Measure, Metrics
from bundle.evaluation.table import metrics_row, read_metrics, read_table, write_table
from bundle.experiment.runs import NOT_REGISTERED, Evaluation, slug
from bundle.experiment.statistics import ALPHA, compare_paired, summarise

COSTS = ("folded_percent", "log_jacobian_sd", "seconds", "seconds_registration", "seconds_per_step")
AVERAGED = {f"{key}_{MEASURES[key].average}": MEASURES[key] for key in COSTS}
"""Columns of Table 1 with one number for all pairs, after the columns of accuracy."""

Row = dict[str, Any]
Run = dict[str, Row]
"""Rows of a run by pair, from ``metrics_row``; a failed pair only has ``pair_id``, ``status`` and ``error``."""


@dataclass(frozen=True)
class Results:
    """An evaluation as read from disk.

    Attributes:
        evaluation: the evaluation.
        runs: rows of every method.
        curves: rows of every start and number of steps or epochs.
        left_out: sentences about the structures that are in no row, because a run lost them.
    """

    evaluation: Evaluation
    runs: dict[str, Run]
    curves: dict[str, dict[int, Run]]
    left_out: Sequence[str] = ()

    @property
    def reference(self) -> str:
        """Method against which the others are tested."""
        return self.evaluation.reference

    @cached_property
    def pairs(self) -> list[str]:
        """Every pair, sorted."""
        return sorted(self.runs[self.reference])

    @cached_property
    def series(self) -> dict[Measure, dict[str, list[float | None]]]:
        """Accuracy of every method, with "not registered" first.

        For a measure that some pair has, a value for each of ``pairs``; None if it is missing.
        """
        series = {measure: _series(self, measure) for measure in self.evaluation.measures}
        return {measure: methods for measure, methods in series.items() if numbers(sum(methods.values(), []))}

    @property
    def slug(self) -> str:
        """The title as a part of file names."""
        return slug(self.evaluation.title)

    @property
    def all_runs(self) -> dict[str, Run]:
        """The runs of the methods and those of the curves, by name."""
        over = self.evaluation.curves.over
        return self.runs | {
            f"{start}, {n} {over}": run for start, runs in self.curves.items() for n, run in runs.items()
        }


def read_evaluation(evaluation: Evaluation) -> Results:
    """Read all runs of an evaluation; a pair has the same structures in all of them.

    Raises:
        ValueError: when a folder holds no results or not the reference's pairs.
    """
    title, reference = evaluation.title, evaluation.reference
    curves = evaluation.curves
    folders = [*evaluation.runs.values(), *(path for each in curves.starts.values() for path in each.values())]
    runs, left_out = read_runs(folders)
    found = iter(runs)
    results = Results(
        evaluation,
        runs={name: next(found) for name in evaluation.runs},
        curves={start: {n: next(found) for n in each} for start, each in curves.starts.items()},
        left_out=left_out,
    )
    for name, run in results.all_runs.items():
        different = sorted(run.keys() ^ set(results.pairs))
        if different:
            raise ValueError(
                f"{title}: the run {name!r} does not hold the same pairs as {reference!r} ({different[0]} is in only "
                "one of them); run inference over the same list"
            )
    return results


def read_runs(folders: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Rows of folders of inference, including failed pairs, over the structures that all of them have.

    Args:
        folders: the ``output_dir`` of each run.

    Returns:
        The rows of every folder, and sentences about the structures that are left out.

    Raises:
        ValueError: when one holds no results.
    """
    measured = [{metrics["pair_id"]: metrics for metrics in read_metrics(Path(folder))} for folder in folders]
    compared, left_out = comparable(measured)
    return [_rows(Path(folder), run) for folder, run in zip(folders, compared, strict=True)], left_out


def _rows(folder: Path, measured: Mapping[str, Metrics]) -> Run:
    """Rows of the pairs that were measured, and of those that failed."""
    run = {pair: metrics_row(metrics) | _device(metrics) for pair, metrics in measured.items()}
    failed = [row for row in read_table(folder) if row["status"] == "failed"]
    return run | {row["pair_id"]: {key: row[key] for key in ("pair_id", "status", "error")} for row in failed}


def _device(metrics: Mapping[str, Any]) -> Row:
    return {"steps": metrics["steps"], "device": metrics["device"]}


def numbers(values: Iterable[float | None]) -> list[float]:
    """The values that are not missing."""
    return [value for value in values if value is not None]


def column(run: Run, measure: Measure, pairs: Iterable[str], when: str = "after") -> list[float | None]:
    """Values of a measure ``before`` or ``after`` for each pair; None if missing."""
    name = measure.columns.get(when, "")
    return [run[pair].get(name) for pair in pairs]


def _series(results: Results, measure: Measure) -> dict[str, list[float | None]]:
    """Before registration, and after each method."""
    runs, pairs = results.runs, results.pairs
    # If a pair failed in the reference's run, another run has its value; other_starts tells those that start elsewhere.
    starts = [column(run, measure, pairs, "before") for run in (runs[results.reference], *runs.values())]
    before = [next(iter(numbers(found)), None) for found in zip(*starts, strict=True)]
    return {NOT_REGISTERED: before} | {n: column(run, measure, pairs) for n, run in runs.items()}


def other_starts(results: Results) -> list[str]:
    """A sentence about methods whose pairs were otherwise before registration, as with an alignment of their own."""
    runs, pairs, reference = results.runs, results.pairs, results.runs[results.reference]
    others: dict[str, None] = {}
    for measure in (measure for measure in results.series if measure.has_before):
        known = np.array(column(reference, measure, pairs, "before"), dtype=float)
        for name, run in runs.items():
            found = np.array(column(run, measure, pairs, "before"), dtype=float)
            both = np.isfinite(known) & np.isfinite(found)
            if not np.allclose(known[both], found[both]):
                others[name] = None
    if not others:
        return []
    what = f"{', '.join(others)}, whose pairs were measured otherwise before registration: another grid or alignment"
    return [f"The row {NOT_REGISTERED!r} is that of {results.reference}, not of {what}"]


def done(run: Run) -> list[str]:
    """Pairs that were registered."""
    return [pair for pair, row in run.items() if row["status"] == "done"]


def summary_rows(results: Results) -> list[Row]:
    """Table 1: a row for "not registered" and for every method.

    Returns:
        ``method``, ``n`` (pairs registered), for every measure ``<key>_n``, ``_mean``, ``_sd`` and the 95 % interval of
        the mean ``_low`` and ``_high``; ``<column>_mean`` or ``_median`` of folding and times; ``device``.
    """
    rows = []
    for name in (NOT_REGISTERED, *results.runs):
        run = results.runs.get(name, {})
        row: Row = {"method": name, "n": len(done(run)) if run else len(results.pairs)}
        for measure, methods in results.series.items():
            row |= {f"{measure.key}_{key}": value for key, value in asdict(summarise(methods[name])).items()}
        for title, measure in AVERAGED.items():
            values = numbers(column(run, measure, run))
            row[title] = float(getattr(np, measure.average)(values)) if values else None
        row["device"] = ", ".join(sorted({run[pair]["device"] for pair in done(run)}))
        rows.append(row)
    return rows


def comparison_rows(results: Results) -> list[Row]:
    """The reference against "not registered" and every other method, over the pairs that both have.

    Returns:
        ``measure``, ``method``, ``compared_with``, the attributes of ``PairedTest`` and ``significant`` (t-test at
        0.05; None if there is no p).
    """
    rows: list[Row] = []
    for measure, methods in results.series.items():
        # Measures without a value before registration are not compared with "not registered".
        others = set(methods) - {results.reference} - (set() if measure.has_before else {NOT_REGISTERED})
        for other in [name for name in methods if name in others]:
            test = compare_paired(methods[results.reference], methods[other], higher_is_better=measure.higher_is_better)
            verdict = None if math.isnan(test.t_p) else test.t_p < ALPHA
            names = {"measure": measure.key, "method": results.reference, "compared_with": other}
            rows.append({**names, **asdict(test), "significant": verdict})
    return rows


def pair_rows(results: Results) -> list[Row]:
    """Every pair of every method: ``pair_id``, ``method`` and the columns of ``metrics_row``, steps and device."""
    return [
        {"pair_id": pair, "method": name, **run[pair]} for pair in results.pairs for name, run in results.runs.items()
    ]


def median_pair(results: Results) -> tuple[str, Measure]:
    """The pair whose improvement by the reference is the median, in the first available measure, else in the loss.

    For an even number of pairs, it is the lower one of the two in the middle.
    """
    run = results.runs[results.reference]
    candidates = ((measure, _improvements(run, measure)) for measure in (*results.series, LOSS))
    measure, improvements = next((measure, found) for measure, found in candidates if found)
    return sorted(improvements)[(len(improvements) - 1) // 2][1], measure


def _improvements(run: Run, measure: Measure) -> list[tuple[float, str]]:
    """By how much each pair improved, with the pair."""
    sign = 1 if measure.higher_is_better else -1
    before, after = (column(run, measure, run, when) for when in WHEN)
    ends = zip(run, before, after, strict=True)
    return [(sign * (end - start), pair) for pair, start, end in ends if start is not None and end is not None]


def missing(value: Any) -> bool:
    """Whether a number is missing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV under the union of their columns; a missing number is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_table([{name: value for name, value in row.items() if not missing(value)} for row in rows], columns, path)
