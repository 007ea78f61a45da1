"""The report of an experiment: tables, tests and figures in one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bundle.evaluation.measures import Measure
from bundle.experiment.curves import save_figure
from bundle.experiment.figures import experiment_figures
from bundle.experiment.results import (
    AVERAGED,
    Results,
    Row,
    comparison_rows,
    missing,
    other_starts,
    pair_rows,
    read_evaluation,
    summary_rows,
    write_rows,
)
from bundle.experiment.runs import Evaluation
from bundle.experiment.statistics import ALPHA, Summary
from bundle.pages.markup import ABSENT, render
from bundle.system import written_whole


def write_report(
    output_dir: str | Path,
    evaluations: Sequence[Evaluation],
    title: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of an experiment: ``report.html`` with its tables, and its figures beside it.

    Every evaluation has ``table_<slug>.csv``, ``tests_<slug>.csv`` and ``pairs_<slug>.csv``, and the figures of
    ``experiment_figures`` as PNG and, for print, as PDF. The page only refers to files in its own folder, so the folder
    can be moved as a whole. The same runs give the same bytes.

    Args:
        output_dir: folder of the report; created if missing.
        evaluations: what was run.
        title: title of the page.
        notes: paragraphs for the reader.

    Returns:
        The page.

    Raises:
        ValueError: when a run holds no results or has different pairs from the reference's, the reference is missing,
            two evaluations would write the same files, or an image of the example cannot be read.
    """
    output = Path(output_dir)
    found = [read_evaluation(evaluation) for evaluation in evaluations]
    slugs = [results.slug for results in found]
    if "" in slugs or len(set(slugs)) < len(slugs):
        raise ValueError(
            f"titles of evaluations become names of files, here {slugs}; let them differ in a letter or digit"
        )
    evaluated = [_numbers_part(results, output) | {"figures": _figures_part(results, output)} for results in found]
    path = output / "report.html"
    with written_whole(path) as file:
        file.write(render("report.html", title=title, notes=notes, evaluations=evaluated, alpha=ALPHA))
    return path


def _numbers_part(results: Results, output: Path) -> dict[str, Any]:
    """The tables of an evaluation, written as CSV and returned as text."""
    summary, tests = summary_rows(results), comparison_rows(results)
    files = {f"{name}_{results.slug}.csv": rows for name, rows in (("table", summary), ("tests", tests))}
    files[f"pairs_{results.slug}.csv"] = pair_rows(results)
    for name, rows in files.items():
        write_rows(output / name, rows)
    failures = [
        f"{name} failed on {pair}: {row['error']}"
        for name, run in results.all_runs.items()
        for pair, row in run.items()
        if row["status"] == "failed"
    ]
    return {
        "title": results.evaluation.title,
        "reference": results.reference,
        "pairs": len(results.pairs),
        "summary": _summary_table(results, summary),
        "notes": [*failures, *results.left_out, *other_starts(results)],
        "tests": _tests_table(results, tests),
        "files": list(files),
    }


def _summary_table(results: Results, rows: Sequence[Row]) -> dict[str, Any]:
    averages = {name: one for name, one in AVERAGED.items() if any(not missing(row.get(name)) for row in rows)}
    header = ["", "n", *(measure.label() for measure in (*results.series, *averages.values()))]
    cells = [
        [row["method"], str(row["n"])]
        + [_spread(row, measure) for measure in results.series]
        + [_number(row.get(name), measure) for name, measure in averages.items()]
        + [row["device"]]
        for row in rows
    ]
    return {"header": [*header, "device"], "rows": cells}


def _spread(row: Row, measure: Measure) -> str:
    count, *spread = (row[f"{measure.key}_{field.name}"] for field in fields(Summary))
    mean, sd, low, high = (_number(value, measure) for value in spread)
    fewer = f" (n = {count})" if 0 < count != row["n"] else ""
    return f"{mean} ± {sd} [{low}, {high}]{fewer}" if mean != ABSENT else ABSENT


def _number(value: float | None, measure: Measure) -> str:
    return ABSENT if value is None or math.isnan(value) else measure.text(value)


def _tests_table(results: Results, rows: Sequence[Row]) -> dict[str, Any]:
    measures = {measure.key: measure for measure in results.series}
    cells = []
    for row in rows:
        measure = measures[row["measure"]]
        sentence = f"{measure.title} better than {row['compared_with']} on {row['improved']} of {row['n']} pairs"
        difference, low, high = (_number(row[name], measure) for name in ("difference", "low", "high"))
        better = (row["difference"] > 0) == measure.higher_is_better
        verdict = f"significantly {'better' if better else 'worse'}" if row["significant"] else "not significant"
        cells.append(
            [sentence if missing(row["t_p"]) else f"{sentence}, p {_p(row['t_p'], '= ')}"]
            + [f"{difference} [{low}, {high}]", _p(row["t_p"]), _p(row["wilcoxon_p"])]
            + [ABSENT if row["significant"] is None else verdict]
        )
    return {"header": [results.reference, "difference", "t-test p", "Wilcoxon p", f"at {ALPHA}"], "rows": cells}


def _p(value: float, equals: str = "") -> str:
    return ABSENT if missing(value) else "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def _figures_part(results: Results, output: Path) -> list[dict[str, str]]:
    """The figures of an evaluation, written beside the page: name of the picture, and caption."""
    return [
        {"file": save_figure(figure, output / f"{name}_{results.slug}"), "caption": caption}
        for name, (figure, caption) in experiment_figures(results).items()
    ]
