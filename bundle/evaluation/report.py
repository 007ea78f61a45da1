"""What a run leaves for people: the table over all pairs, a picture of every pair."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from matplotlib.figure import Figure
from monai.transforms import Transform

from bundle import processes
from bundle.evaluation.table import headline, mean_and_sd, metrics_row, table_columns, write_table


class ColumnMean(Metric):
    """Mean of a column of ``metrics.csv`` over the pairs of a validation, of all processes; NaN where no pair has it.

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
        """Mean over the pairs; one that two processes had, to be even, counts once."""
        values = [value for value in dict(processes.gather(self.values)).values() if value is not None]
        return float(np.mean(values)) if values else float("nan")


class MetricsTable:
    """Evaluation handler that keeps ``metrics.csv`` over all pairs, the failed ones too, and ``summary.csv``.

    The mean and the SD over the pairs have a file of their own, so that a mean over a column of the pairs is right.

    Of several processes the first writes: the pairs of its own as they are done, at the end those of all.

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
        self.rows = []

    def _add(self, engine: Engine) -> None:
        for output in engine.state.output:
            if "error" in output:
                self.rows.append({"pair_id": output["pair_id"], "status": "failed", "error": output["error"]})
            else:
                self.rows.append(metrics_row(output["metrics"]))
                what = "finished before:" if output.get("finished") else "registered"
                engine.logger.info(f"{what} {output['metrics']['pair_id']}: {headline(self.rows[-1])}")
        self._write()

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
            RuntimeError: there, when pairs failed, naming each and its reason.
        """
        if not processes.is_first():
            return
        failed = [row for row in self.rows if row["status"] == "failed"]
        counts = Counter(row["verdict"] for row in self.rows if "verdict" in row)
        verdicts = f" ({counts['good']} good, {counts['check']} to check, {counts['failed']} failed)" if counts else ""
        print(f"{len(self.rows) - len(failed)} of {len(self.rows)} pairs registered{verdicts}; table: {self.path}")
        if failed:
            reasons = "; ".join(f"{row['pair_id']}: {row['error']}" for row in failed)
            raise RuntimeError(f"{len(failed)} of {len(self.rows)} pairs failed ({reasons})")


class PairPictured(Transform):
    """Picture of a registered pair as PNG bytes under ``picture``.

    Rows: the three planes through the middle of the fixed image; of a single slice, itself. Columns: fixed, moving
    (initially aligned), warped, checkerboard of fixed and warped, displacement in mm. The first structure of the labels
    is outlined, fixed green and moving or warped red.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw one pair after ``bundle.registration.NativeOutputsd``."""
        images = {
            "fixed": data["native_fixed_image"][0].numpy(),
            "moving": data["aligned_image"][0].numpy(),
            "warped": data["warped_image"][0].numpy(),
        }
        labels = {
            name: first_structure(data[key].numpy())
            for name, key in (("fixed", "native_fixed_label"), ("moving", "aligned_label"), ("warped", "warped_label"))
            if key in data
        }
        shape = images["fixed"].shape
        board = np.indices(shape) // max(4, max(shape) // 12)
        images["checkerboard"] = np.where(board.sum(0) % 2, images["fixed"], images["warped"])
        magnitude = np.linalg.norm(data["displacement"].numpy(), axis=0)
        spacing = data["native_fixed_image"].pixdim.tolist()
        planes = [plane for plane in range(3) if min(shape[:plane] + shape[plane + 1 :]) > 1]
        # The rows of a picture go down, the second axis of a volume goes up.
        origin: Any = "upper" if "mode" in data["native_fixed_image"].meta else "lower"
        # Figures of pyplot are numbered in one list, which threads would share.
        figure = Figure(figsize=(12, 2.5 * len(planes)), layout="constrained")
        axes = figure.subplots(len(planes), 5, squeeze=False)
        for line, plane in enumerate(planes):
            index = slice_of_interest(labels.get("fixed"), shape, plane)
            rows = [axis for axis in range(3) if axis != plane]
            aspect = spacing[rows[1]] / spacing[rows[0]]
            for axis, (name, image) in zip(axes[line], images.items(), strict=False):
                axis.imshow(image.take(index, plane).T, cmap="gray", origin=origin, aspect=aspect)
                axis.set_title(name if line == 0 else "")
                for outlined, colour in (("fixed", "lime"), (name, "red")):
                    if name in labels and outlined in labels and (outlined, colour) != ("fixed", "red"):
                        _outline(axis, labels[outlined].take(index, plane).T, colour)
            shown = axes[line, 4].imshow(
                magnitude.take(index, plane).T,
                cmap="viridis",
                origin=origin,
                aspect=aspect,
                vmin=0,
                vmax=magnitude.max(),
            )
            axes[line, 4].set_title("displacement (mm)" if line == 0 else "")
            figure.colorbar(shown, ax=axes[line, 4], fraction=0.05)
        for axis in axes.flat:
            axis.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        return {**data, "picture": buffer.getvalue()}


def _outline(axis: Any, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=colour, linewidths=1)


def first_structure(label: np.ndarray) -> np.ndarray:
    """Mask of the first channel, or of every value of an integer map, from ``(channels, *shape)``."""
    return label[0] > 0


def slice_of_interest(label: np.ndarray | None, shape: Sequence[int], axis: int) -> int:
    """Index of the slice across ``axis`` with most of the label, or the middle one without a label."""
    if label is None or not label.any():
        return shape[axis] // 2
    others = tuple(other for other in range(label.ndim) if other != axis)
    return int(label.sum(others).argmax())
