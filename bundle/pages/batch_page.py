"""The quality page of a run: all its pairs, with a small picture and the verdict of each."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ignite.engine import Engine, Events
from markupsafe import Markup

from bundle.evaluation.measures import FOLDED, LARGEST, SECONDS, Measure
from bundle.evaluation.table import accuracy, metrics_row
from bundle.evaluation.verdict import VERDICTS
from bundle.pages.markup import ABSENT, render, rules_shown, score_text
from bundle.system import processes, written_whole

ERROR = "error"


class QualityIndex:
    """Evaluation handler that keeps ``quality.html`` over all pairs, including those that could not be registered.

    Among several processes the first writes: its own pairs as they are done, and at the end those of all.

    Args:
        output_dir: folder of the run, with a ``<pair_id>/quality.html`` for each pair.
        shown: False if the pairs have no pages: that of an earlier run, which leads to them, is removed.
    """

    def __init__(self, output_dir: str | os.PathLike[str], shown: bool = True) -> None:
        self.path = Path(output_dir) / "quality.html"
        self.shown = shown
        self.pairs: list[Mapping[str, Any]] = []
        self.due = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        if not self.shown:
            engine.add_event_handler(Events.STARTED, self._remove)
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._gather)

    def _remove(self, engine: Engine) -> None:
        if processes.is_first():
            self.path.unlink(missing_ok=True)

    def _start(self, engine: Engine) -> None:
        self.pairs, self.due = [], 0.0

    def _add(self, engine: Engine) -> None:
        keys = ("pair_id", "error", "metrics", "thumbnail")
        self.pairs += [{key: output[key] for key in keys if key in output} for output in engine.state.output]
        # The page grows with every pair: for a long list, at most a tenth of the time goes into writing it.
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
    rows = [metrics_row(metrics) for metrics in done]
    shown = accuracy(rows)
    titles = [
        *["score"] * any("score" in row for row in rows),
        *(measure.label() for measure in shown),
        "gain of similarity (%)",
        FOLDED.label(),
        LARGEST.title,
        SECONDS.label(),
    ]
    found = iter(rows)
    return render(
        "run.html",
        title="Quality of the registered pairs",
        counts=[(verdict, counts[verdict]) for verdict in VERDICTS],
        lost=len(pairs) - len(done),
        titles=titles,
        pairs=[_done(pair, next(found), shown, titles) if "metrics" in pair else _lost(pair, titles) for pair in pairs],
        rules=rules_shown(done[0]["verdict"]["rules"]) if done else [],
    )


def _done(
    pair: Mapping[str, Any], row: Mapping[str, Any], shown: Sequence[Measure], titles: Sequence[str]
) -> dict[str, Any]:
    metrics, name = pair["metrics"], pair["metrics"]["pair_id"]
    verdict = metrics["verdict"]
    gain = next((rule["value"] for rule in verdict["rules"] if rule["rule"] == "similarity_gain_percent"), None)
    unit = next((rule["unit"] for rule in verdict["rules"] if rule["rule"] == "largest_displacement_mm"), "mm")
    return {
        "name": name,
        "link": f"{quote(name)}/quality.html",
        # The thumbnail of a pair finished earlier was read from a file, as plain text.
        "picture": Markup(pair["thumbnail"]),
        "verdict": verdict["verdict"],
        "reasons": verdict["reasons"],
        "error": None,
        "numbers": [
            *[score_text(verdict) or ABSENT] * ("score" in titles),
            *(_both(row, measure) for measure in shown),
            ABSENT if gain is None else f"{gain:.1f}",
            FOLDED.text(row[FOLDED.key]),
            f"{LARGEST.text(row[LARGEST.key])} {unit}",
            SECONDS.text(row[SECONDS.key]),
        ],
    }


def _both(row: Mapping[str, Any], measure: Measure) -> str:
    return " → ".join(measure.text(row[column]) for column in measure.columns.values() if column in row) or ABSENT


def _lost(pair: Mapping[str, Any], titles: Sequence[str]) -> dict[str, Any]:
    return {
        "name": pair["pair_id"],
        "link": None,
        "picture": "",
        "verdict": ERROR,
        "reasons": [],
        "error": pair["error"],
        "numbers": [ABSENT] * len(titles),
    }
