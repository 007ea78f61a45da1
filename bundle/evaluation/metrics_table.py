"""The table over the pairs of a run."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric

from bundle.evaluation.table import headline, mean_and_sd, metrics_row, table_columns, write_table
from bundle.system import processes


class ColumnMean(Metric):
    """Mean of a column of ``metrics.csv`` over the validation pairs of all processes.

    A column that no pair has, such as the DSC of pairs without labels, is no metric of the engine: nothing is logged.

    Args:
        column: name of the column, such as ``loss_after``.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__()

    def reset(self) -> None:
        """Forget the values of the last validation."""
        self.values: list[tuple[str, float | None]] = []

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add the registered pairs of an iteration."""
        rows = [metrics_row(pair["metrics"]) for pair in output]
        self.values += [(row["pair_id"], row.get(self.column)) for row in rows]

    def compute(self) -> float:
        """Mean over the pairs; a pair dealt to two processes, to even out their shares, counts once.

        Raises:
            NotComputableError: when no pair has a value.
        """
        values = [value for value in dict(processes.gather(self.values)).values() if value is not None]
        if not values:
            raise NotComputableError(f"no validation pair has {self.column}")
        return float(np.mean(values))

    def completed(self, engine: Engine, name: str) -> None:
        """Add the mean to the engine's metrics if there is one."""
        with suppress(NotComputableError):
            super().completed(engine, name)


class SomePairsFailed(RuntimeError):
    """Some pairs of a run failed, and others were registered."""


class MetricsTable:
    """Evaluation handler that keeps ``metrics.csv`` over all pairs, including failed ones, and ``summary.csv``.

    The mean and the SD over the pairs are in a separate file, so that a mean over a column of ``metrics.csv`` is right.

    Among several processes the first writes: its own pairs as they are done, and at the end those of all.

    Args:
        output_dir: folder of the run; None writes nothing.
    """

    def __init__(self, output_dir: str | os.PathLike[str] | None) -> None:
        self.path = None if output_dir is None else Path(output_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._gather)

    def _start(self, engine: Engine) -> None:
        self.rows, self.started = [], time.monotonic()
        self.pairs = len(getattr(engine.state.dataloader, "dataset", engine.state.dataloader))

    def _add(self, engine: Engine) -> None:
        for output in engine.state.output:
            if "error" in output:
                self.rows.append({"pair_id": output["pair_id"], "status": "failed", "error": output["error"]})
            else:
                self.rows.append(metrics_row(output["metrics"]))
                what = "finished before:" if output.get("finished") else "registered"
                place = processes.place(engine.state.iteration - 1) + 1
                engine.logger.info(
                    f"pair {place} of {self.pairs}{self._time_left(engine)}, "
                    f"{what} {output['metrics']['pair_id']}: {headline(self.rows[-1])}"
                )
        self._write()

    def _time_left(self, engine: Engine) -> str:
        """How long the remaining pairs will take, if that is long."""
        done, seconds = engine.state.iteration, time.monotonic() - self.started
        left = seconds / done * (engine.state.epoch_length - done)
        return f" ({left / 60:.0f} min left)" if left >= 60 else ""

    def _gather(self, engine: Engine) -> None:
        self.rows = processes.gather(self.rows)
        self._write()

    def _write(self) -> None:
        if self.path is not None and processes.is_first():
            columns, done = table_columns(self.rows), [row for row in self.rows if row["status"] == "done"]
            write_table(self.rows, columns, self.path)
            write_table(mean_and_sd(done), columns, self.path.with_name("summary.csv"))

    def conclude(self) -> None:
        """Print where the results are, in the first process.

        Raises:
            RuntimeError: in that process, when pairs failed, naming each and its reason; ``SomePairsFailed`` if others
                did not.
        """
        if not processes.is_first():
            return
        failed = [row for row in self.rows if row["status"] == "failed"]
        counts = Counter(row["verdict"] for row in self.rows if "verdict" in row)
        verdicts = f" ({counts['good']} good, {counts['check']} to check, {counts['failed']} failed)" if counts else ""
        print(f"{len(self.rows) - len(failed)} of {len(self.rows)} pairs registered{verdicts}; table: {self.path}")
        if failed:
            reasons = "; ".join(f"{row['pair_id']}: {row['error']}" for row in failed)
            kind = SomePairsFailed if len(failed) < len(self.rows) else RuntimeError
            raise kind(f"{len(failed)} of {len(self.rows)} pairs failed ({reasons})")
