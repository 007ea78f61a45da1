"""The report of an experiment: tables, tests and figures in one page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bundle.evaluation.measures import Measure
from bundle.experiment.curves import save_figure
from bundle.experiment.figures import experiment_figures
from bundle.experiment.results import (
    ALPHA,
    AVERAGED,
    SPREAD,
    Results,
    Row,
    comparison_rows,
    missing,
    pair_rows,
    read_evaluation,
    summary_rows,
    write_rows,
)
from bundle.experiment.runs import Evaluation
from bundle.pages.markup import ABSENT, page, table
from bundle.system import written_whole


def write_report(
    output_dir: str | Path,
    evaluations: Sequence[Evaluation],
    title: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of an experiment: ``report.html``, one file that needs no other, with its tables and figures.

    Beside it, for every evaluation, ``table_<slug>.csv``, ``tests_<slug>.csv`` and ``pairs_<slug>.csv``, and as PNG and
    PDF the figures of ``experiment_figures``. The same runs give the same bytes.

    Args:
        output_dir: folder of the report; created when missing.
        evaluations: what was run.
        title: of the page.
        notes: paragraphs for the reader.

    Returns:
        The page.

    Raises:
        ValueError: when a run holds no results or other pairs than the reference's, the reference is missing, two
            evaluations would write the same files, or an image of the example cannot be read.
    """
    output = Path(output_dir)
    found = [read_evaluation(evaluation) for evaluation in evaluations]
    slugs = [results.slug for results in found]
    if "" in slugs or len(set(slugs)) < len(slugs):
        raise ValueError(f"titles of evaluations name files, here {slugs}; give each letters or digits of its own")
    body = [f"<p>{escape(note)}</p>" for note in notes]
    for results in found:
        body += [_numbers_part(results, output), *_figures_part(results, output)]
    path = output / "report.html"
    with written_whole(path) as file:
        file.write(page(title, "\n".join(body)))
    return path


def _numbers_part(results: Results, output: Path) -> str:
    """The tables of an evaluation, written as CSV and returned as HTML."""
    summary, tests = summary_rows(results), comparison_rows(results)
    files = {"table": summary, "tests": tests, "pairs": pair_rows(results)}
    for name, rows in files.items():
        write_rows(output / f"{name}_{results.slug}.csv", rows)
    links = ", ".join(f'<a href="{name}_{results.slug}.csv">{name}_{results.slug}.csv</a>' for name in files)
    failures = [
        f"{name} failed on {pair}: {row['error']}"
        for name, run in results.all_runs.items()
        for pair, row in run.items()
        if row["status"] == "failed"
    ]
    title = results.evaluation.title
    parts = [
        f"<h2>{escape(title)}</h2>",
        f"<p>{len(results.pairs)} pairs. Accuracy is mean ± SD over the pairs [95 % confidence interval of the mean]; "
        "folding and SD of log J are means, times medians over the pairs.</p>",
        _summary_table(results, summary),
        *(f'<p class="small">{escape(failure)}</p>' for failure in failures),
    ]
    if tests:
        parts += [
            f"<h3>{escape(results.reference)} against the others</h3>",
            _tests_table(results, tests),
            f'<p class="small">Two-tailed paired t-test at {ALPHA} and Wilcoxon signed-rank test over the pairs that '
            "both methods have; p is not corrected for the number of comparisons. Difference: mean of "
            f"{escape(results.reference)} minus the other [95 % confidence interval].</p>",
        ]
    return "\n".join([*parts, f'<p class="small">Numbers: {links}</p>'])


def _summary_table(results: Results, rows: Sequence[Row]) -> str:
    averages = {name: one for name, one in AVERAGED.items() if any(not missing(row.get(name)) for row in rows)}
    header = ["", "n", *(measure.label() for measure in (*results.series, *averages.values()))]
    cells = [
        [row["method"], str(row["n"])]
        + [_spread(row, measure) for measure in results.series]
        + [_number(row.get(name), measure) for name, measure in averages.items()]
        + [row["device"]]
        for row in rows
    ]
    return table([*header, "device"], cells, results.reference)


def _spread(row: Row, measure: Measure) -> str:
    count, *spread = (row[f"{measure.key}_{name}"] for name in SPREAD)
    mean, sd, low, high = (_number(value, measure) for value in spread)
    fewer = f" (n = {count})" if 0 < count != row["n"] else ""
    return f"{mean} ± {sd} [{low}, {high}]{fewer}" if mean != ABSENT else ABSENT


def _number(value: float | None, measure: Measure) -> str:
    return ABSENT if value is None or math.isnan(value) else measure.text(value)


def _tests_table(results: Results, rows: Sequence[Row]) -> str:
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
    return table([results.reference, "difference", "t-test p", "Wilcoxon p", f"at {ALPHA}"], cells)


def _p(value: float, equals: str = "") -> str:
    return ABSENT if missing(value) else "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def _figures_part(results: Results, output: Path) -> list[str]:
    """The figures of an evaluation, written as PNG and PDF and returned as HTML."""
    parts = []
    for name, (figure, caption) in experiment_figures(results).items():
        stem = f"{name}_{results.slug}"
        image = base64.b64encode(save_figure(figure, output / stem)).decode()
        text = escape(caption)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{image}">\n<figcaption>{text} '
            f'<a href="{stem}.pdf">{stem}.pdf</a></figcaption></figure>'
        )
    return parts
