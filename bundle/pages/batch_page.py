"""The quality page of a run: all its pairs, with a small picture and the verdict of each."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ignite.engine import Engine, Events

from bundle.evaluation.measures import FOLDED, LARGEST, SECONDS, Measure
from bundle.evaluation.table import accuracy, metrics_row
from bundle.evaluation.verdict import VERDICTS
from bundle.pages.markup import ABSENT, STYLE, Markup, badge, page, rules_table, table
from bundle.system import processes, written_whole

ERROR = "error"
THUMBNAILS = """
.pairs td { vertical-align: middle } .pairs svg { width: 6rem; display: block } .pairs .letter { display: none }
.pairs td:nth-child(4) { white-space: normal; text-align: left; min-width: 16rem; overflow-wrap: anywhere }
.pairs ul { margin: 0; padding-left: 1rem }
.pairs td:nth-child(2), .pairs td:nth-child(3), .pairs thead th { text-align: left }
"""


class QualityIndex:
    """Evaluation handler that keeps ``quality.html`` over all pairs, those that could not be registered too.

    Of several processes the first writes: the pairs of its own as they are done, at the end those of all.

    Args:
        output_dir: folder of the run, where ``<pair_id>/quality.html`` are.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "quality.html"
        self.pairs: list[Mapping[str, Any]] = []
        self.due = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._gather)

    def _start(self, engine: Engine) -> None:
        self.pairs, self.due = [], 0.0

    def _add(self, engine: Engine) -> None:
        keys = ("pair_id", "error", "metrics", "thumbnail")
        self.pairs += [{key: output[key] for key in keys if key in output} for output in engine.state.output]
        # The page grows with every pair: of a long list, at most a tenth of the time goes into writing it.
        start = time.monotonic()
        if start >= self.due:
            self._write()
            self.due = time.monotonic() + 9 * (time.monotonic() - start)

    def _gather(self, engine: Engine) -> None:
        self.pairs = processes.gather(self.pairs)
        self._write()

    def _write(self) -> None:
        if processes.is_first():
            with written_whole(self.path) as file:
                file.write(batch_page(self.pairs))


def batch_page(pairs: list[Mapping[str, Any]]) -> str:
    """HTML of the page over all pairs, in their order.

    Args:
        pairs: ``metrics`` and ``thumbnail`` of each, or ``pair_id`` and ``error``.
    """
    done = [pair["metrics"] for pair in pairs if "metrics" in pair]
    counts = Counter(metrics["verdict"]["verdict"] for metrics in done)
    parts = [f"{counts[verdict]} {badge(verdict)}" for verdict in VERDICTS]
    if len(done) < len(pairs):
        parts.append(f"{len(pairs) - len(done)} could not be registered {badge(ERROR)}")
    body = f"<p>{len(pairs)} pair{'s' * (len(pairs) != 1)}: {', '.join(parts)}</p>"
    rows = [metrics_row(metrics) for metrics in done]
    shown = accuracy(rows)
    header = [
        "",
        "pair",
        "verdict",
        "reasons",
        "score",
        *(measure.label() for measure in shown),
        "gain of similarity %",
        FOLDED.label(),
        LARGEST.title,
        SECONDS.label(),
    ]
    found = iter(rows)
    cells = [_done(pair, next(found), shown) if "metrics" in pair else _lost(pair, len(shown)) for pair in pairs]
    body += f'<div class="pairs">{table(header, cells)}</div>'
    if done:
        body += f"<h2>Rules of the verdict</h2>{rules_table(done[0]['verdict']['rules'], measured=False)}"
    return page("Quality of the registered pairs", body, STYLE + THUMBNAILS)


def _done(pair: Mapping[str, Any], row: Mapping[str, Any], shown: Sequence[Measure]) -> list[str]:
    metrics, name = pair["metrics"], pair["metrics"]["pair_id"]
    verdict = metrics["verdict"]
    gain = next((rule["value"] for rule in verdict["rules"] if rule["rule"] == "similarity_gain_percent"), None)
    unit = next((rule["unit"] for rule in verdict["rules"] if rule["rule"] == "largest_displacement_mm"), "mm")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    return [
        Markup(pair["thumbnail"]),
        Markup(f'<a href="{quote(name)}/quality.html">{escape(name)}</a>'),
        badge(verdict["verdict"]),
        Markup(f"<ul>{reasons}</ul>") if reasons else "",
        ABSENT if row.get("score") is None else f"{row['score']:.2f}",
        *(_both(row, measure) for measure in shown),
        ABSENT if gain is None else f"{gain:.1f}",
        FOLDED.text(row[FOLDED.key]),
        f"{LARGEST.text(row[LARGEST.key])} {unit}",
        SECONDS.text(row[SECONDS.key]),
    ]


def _both(row: Mapping[str, Any], measure: Measure) -> str:
    return " → ".join(measure.text(row[column]) for column in measure.columns.values() if column in row) or ABSENT


def _lost(pair: Mapping[str, Any], measures: int) -> list[str]:
    return ["", pair["pair_id"], badge(ERROR), f"Could not be registered: {pair['error']}", *[ABSENT] * (measures + 5)]
