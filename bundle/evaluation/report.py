"""What a run leaves for people: the table over all pairs, a comparison of runs, a picture of every pair."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.transforms import Transform

from bundle.data import written_whole

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend has to be chosen first: a server has no display

LEADING = (
    "pair_id",
    "status",
    "dsc_before",
    "dsc_after",
    "tre_rms_before_mm",
    "tre_rms_after_mm",
    "hd95_before_mm",
    "hd95_after_mm",
    "folded_percent",
)

NAME_WIDTH = 44


def metrics_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One row of ``metrics.csv`` from the metrics of a pair (``metrics.json``)."""
    row: dict[str, Any] = {"pair_id": metrics["pair_id"], "status": "done"}
    # A structure that registration loses has no distance; its absence must not improve the mean.
    distances = [entry for entry in metrics.get("hd95_mm", {}).values() if None not in entry.values()]
    for when in ("before", "after"):
        scores = [entry[when] for entry in metrics.get("dsc", {}).values() if entry[when] is not None]
        if scores:
            row[f"dsc_{when}"] = float(np.mean(scores))
        if "tre_rms_mm" in metrics:
            row[f"tre_rms_{when}_mm"] = metrics["tre_rms_mm"][when]
        if distances:
            row[f"hd95_{when}_mm"] = float(np.mean([entry[when] for entry in distances]))
    row["folded_percent"] = metrics["folded_percent"]
    row["loss_before"], row["loss_after"] = metrics["loss"][0], metrics["loss"][-1]
    row["seconds"] = sum(metrics["seconds"].values())
    # Not every run has these: no steps, a field that folds everywhere, results older than the metric.
    optional = {column: metrics.get(column) for column in ("log_jacobian_sd", "seconds_per_step")}
    optional["seconds_registration"] = metrics["seconds"].get("registration")
    row |= {column: value for column, value in optional.items() if value is not None}
    for structure, entry in metrics.get("dsc", {}).items():
        row |= {f"dsc_{structure}_{when}": value for when, value in entry.items()}
    return row


def mean_and_sd(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Two rows, ``mean`` and ``sd`` (n - 1), over the numbers of the pairs that were done."""
    columns = {column for row in rows for column, value in row.items() if isinstance(value, float | int)}
    summary: list[dict[str, Any]] = [{"pair_id": "mean", "status": ""}, {"pair_id": "sd", "status": ""}]
    for column in columns:
        values = [row[column] for row in rows if row.get(column) is not None]
        summary[0][column] = float(np.mean(values))
        summary[1][column] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return summary


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV under the union of their columns; the file appears complete or not at all."""
    columns = list(dict.fromkeys([*LEADING, *(column for row in rows for column in row if column != "error"), "error"]))
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


class ColumnMean(Metric):
    """Mean of a column of ``metrics.csv`` over the pairs of a validation; NaN where no pair has it.

    Args:
        column: name of the column, such as ``loss_after``.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__()

    def reset(self) -> None:
        """Forget the values of the last validation."""
        self.values: list[float] = []

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add the registered pairs of an iteration."""
        rows = [metrics_row(pair["metrics"]) for pair in output]
        self.values += [row[self.column] for row in rows if row.get(self.column) is not None]

    def compute(self) -> float:
        """Mean over the pairs."""
        return float(np.mean(self.values)) if self.values else float("nan")


class MetricsTable:
    """Evaluation handler that keeps ``metrics.csv`` over all pairs, the failed ones too.

    Args:
        output_dir: folder of the run.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)

    def _start(self, engine: Engine) -> None:
        self.rows = []

    def _add(self, engine: Engine) -> None:
        for output in engine.state.output:
            if "error" in output:
                self.rows.append({"pair_id": output["pair_id"], "status": "failed", "error": output["error"]})
            else:
                self.rows.append(metrics_row(output["metrics"]))
                engine.logger.info(f"registered {output['metrics']['pair_id']}: {headline(self.rows[-1])}")
        write_table([*self.rows, *mean_and_sd([row for row in self.rows if row["status"] == "done"])], self.path)

    def conclude(self) -> None:
        """Print where the results are.

        Raises:
            RuntimeError: when pairs failed, naming each and its reason.
        """
        failed = [row for row in self.rows if row["status"] == "failed"]
        print(f"{len(self.rows) - len(failed)} of {len(self.rows)} pairs registered; table: {self.path}")
        if failed:
            reasons = "; ".join(f"{row['pair_id']}: {row['error']}" for row in failed)
            raise RuntimeError(f"{len(failed)} of {len(self.rows)} pairs failed ({reasons})")


def headline(row: Mapping[str, Any]) -> str:
    """Short text of a row: DSC and TRE before and after, folding, seconds."""
    parts = []
    if "dsc_after" in row:
        parts.append(f"DSC {row['dsc_before']:.3f} -> {row['dsc_after']:.3f}")
    if row.get("tre_rms_after_mm") is not None:
        parts.append(f"TRE {row['tre_rms_before_mm']:.2f} -> {row['tre_rms_after_mm']:.2f} mm")
    parts.append(f"loss {row['loss_before']:.4f} -> {row['loss_after']:.4f}")
    parts.append(f"folded {row['folded_percent']:.2f} %")
    parts.append(f"{row['seconds']:.1f} s")
    return ", ".join(parts)


def compare(results: Sequence[str | os.PathLike[str]]) -> str:
    """Table of several runs over the same pairs: not registered, then every run.

    Args:
        results: output folders of inference.

    Returns:
        Text, one line per method: DSC, TRE (mm), folded voxels (%) and seconds, mean +- SD over pairs.

    Raises:
        ValueError: when a folder holds no results or the folders hold different pairs.
    """
    runs = [_read_run(Path(folder)) for folder in results]
    if len({tuple(sorted(metrics["pair_id"] for metrics in run)) for run in runs}) != 1:
        raise ValueError(
            f"the runs {', '.join(map(str, results))} do not hold the same pairs, so they cannot be compared"
        )
    lines = [f"{'':{NAME_WIDTH}s} {'DSC':>15s} {'TRE mm':>15s} {'folded %':>9s} {'s/pair':>7s}"]
    first = [metrics_row(metrics) for metrics in runs[0]]
    lines.append(_line("not registered", first, "before"))
    for folder, run in zip(results, runs, strict=True):
        steps = run[0]["steps"]
        method = "meta-learned start, 0 steps" if steps == 0 else f"after {steps} steps"
        name = f"{method} ({Path(folder).name})"
        lines.append(_line(name, [metrics_row(metrics) for metrics in run], "after"))
    return "\n".join(lines)


def _read_run(folder: Path) -> list[dict[str, Any]]:
    run = [json.loads(path.read_text()) for path in sorted(folder.glob("[!.]*/metrics.json"))]
    if not run:
        raise ValueError(f"{folder} holds no results (no */metrics.json); run inference into it first")
    return run


def _line(name: str, rows: Sequence[Mapping[str, Any]], when: str) -> str:
    def spread(column: str) -> str:
        values = [row[column] for row in rows if row.get(column) is not None]
        return f"{np.mean(values):.3f} +- {np.std(values, ddof=min(1, len(values) - 1)):.3f}" if values else "-"

    folded, seconds = "-", "-"
    if when == "after":
        folded = f"{np.mean([row['folded_percent'] for row in rows]):.2f}"
        seconds = f"{np.median([row['seconds'] for row in rows]):.1f}"
    columns = f"{spread(f'dsc_{when}'):>15s} {spread(f'tre_rms_{when}_mm'):>15s} {folded:>9s} {seconds:>7s}"
    return f"{name:{NAME_WIDTH}s} {columns}"


class PairPictured(Transform):
    """Picture of a registered pair as PNG bytes under ``picture``.

    Rows: the three planes through the middle of the fixed image. Columns: fixed, moving (initially aligned), warped,
    checkerboard of fixed and warped, displacement in mm. The first structure of the labels is outlined, fixed green
    and moving or warped red.
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
        board = np.indices(images["fixed"].shape) // 8
        images["checkerboard"] = np.where(board.sum(0) % 2, images["fixed"], images["warped"])
        magnitude = np.linalg.norm(data["displacement"].numpy(), axis=0)
        spacing = data["native_fixed_image"].pixdim.tolist()
        figure, axes = pyplot.subplots(3, 5, figsize=(12, 7.4), layout="constrained")
        for plane in range(3):
            index = slice_of_interest(labels.get("fixed"), images["fixed"].shape, plane)
            rows = [axis for axis in range(3) if axis != plane]
            aspect = spacing[rows[1]] / spacing[rows[0]]
            for axis, (name, image) in zip(axes[plane], images.items(), strict=False):
                axis.imshow(image.take(index, plane).T, cmap="gray", origin="lower", aspect=aspect)
                axis.set_title(name if plane == 0 else "")
                for outlined, colour in (("fixed", "lime"), (name, "red")):
                    if name in labels and outlined in labels and (outlined, colour) != ("fixed", "red"):
                        _outline(axis, labels[outlined].take(index, plane).T, colour)
            shown = axes[plane, 4].imshow(
                magnitude.take(index, plane).T,
                cmap="viridis",
                origin="lower",
                aspect=aspect,
                vmin=0,
                vmax=magnitude.max(),
            )
            axes[plane, 4].set_title("displacement (mm)" if plane == 0 else "")
            figure.colorbar(shown, ax=axes[plane, 4], fraction=0.05)
        for axis in axes.flat:
            axis.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        pyplot.close(figure)
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
