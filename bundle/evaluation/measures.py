"""What is measured for a registered pair: one table that CSV, console, pages, verdict and experiment use."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WHEN = ("before", "after")
"""With the initial alignment alone, and registered."""
Metrics = Mapping[str, Any]
"""Metrics of a pair, as in ``metrics.json``."""


def root_mean_square(values: Sequence[float] | np.ndarray) -> float:
    """``sqrt(mean(e^2))`` over the finite values; NaN when there is none."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else float("nan")


def numbered(kind: str, name: str) -> str:
    """A name for people: one that is a number alone says of what."""
    return f"{kind} {name}" if name.isdigit() else name


@dataclass(frozen=True)
class Measure:
    """Something that is measured for a registered pair.

    Attributes:
        key: name in the plan of an experiment and in its files.
        title: name for people, without the unit.
        unit: unit for people; ``mm`` means pixels if the fixed image is a picture.
        digits: decimals worth showing.
        column: column of ``metrics.csv``, by default the key. It has ``{}``, for ``before`` or ``after``, if there is a
            value before registration too.
        higher_is_better: True for a DSC, False for a distance.
        per_structure: whether every structure (or landmark) has a value, under the key. The value of the pair is the
            mean over those that have one both before and after: a structure that registration loses must not improve
            it.
        mean: of the structures' values.
        average: ``mean`` or ``median`` over the pairs, if a table has room for one number only.
        find: metrics -> the value, or values by ``before`` and ``after``. Without it, the entry with the column's name,
            less ``before`` or ``after``.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 2
    column: str = ""
    higher_is_better: bool = False
    per_structure: bool = False
    mean: Callable[[Any], Any] = np.mean
    average: str = "mean"
    find: Callable[[Metrics], Any] | None = None

    @property
    def stem(self) -> str:
        """The key without its unit, as a part of file names."""
        return self.key.removesuffix("_mm").removesuffix("_px")

    @property
    def has_before(self) -> bool:
        """Whether there is a value before registration."""
        return "{}" in self.column

    @property
    def columns(self) -> dict[str, str]:
        """Columns of ``metrics.csv``, ``before`` (if there is one) and ``after``."""
        return {when: (self.column or self.key).format(when) for when in (WHEN if self.has_before else WHEN[1:])}

    def label(self, lengths: str = "mm", structure: str = "") -> str:
        """Title with unit, given the unit of an image's lengths, and with the structure if there is one."""
        unit = lengths if self.unit == "mm" else self.unit
        what = f" of {numbered('structure', structure)}" if structure else ""
        return f"{self.title}{what}{unit and f' ({unit})'}"

    def text(self, value: float) -> str:
        """A value with the digits worth showing."""
        return f"{value:.{self.digits}f}"

    def entries(self, metrics: Metrics) -> dict[str, dict[str, float | None]]:
        """Values ``before`` (if there is one) and ``after`` by structure; a pair's own have an empty name."""
        if self.per_structure:
            named = metrics.get(self.key) or {}
        else:
            named = {"": self.find(metrics) if self.find else metrics.get((self.column or self.key).replace("_{}", ""))}
        return {
            name: dict(entry) if self.has_before else {"after": entry}
            for name, entry in named.items()
            if entry is not None
        }

    def of(self, metrics: Metrics) -> dict[str, float]:
        """The value of a pair ``before`` (if there is one) and ``after``; empty if one is missing."""
        complete = [entry for entry in self.entries(metrics).values() if None not in entry.values()]
        return {when: float(self.mean([entry[when] for entry in complete])) for when in (complete or [{}])[0]}

    def without(self, metrics: Metrics, structures: Container[str]) -> Metrics:
        """Metrics of a pair, less this measure of some structures."""
        kept = {name: entry for name, entry in (metrics.get(self.key) or {}).items() if name not in structures}
        return {**metrics, self.key: kept}

    def after(self, metrics: Metrics) -> float | None:
        """The value of a pair after registration; None if there is none."""
        return self.of(metrics).get("after")

    def worsening(self, metrics: Metrics) -> float | None:
        """By how much a pair got worse, in the unit of the measure; None if a value is missing."""
        values = self.of(metrics)
        return (-1 if self.higher_is_better else 1) * (values["after"] - values["before"]) if values else None


MEASURES: dict[str, Measure] = {}
"""By key, in the order of tables and pages."""


def _add(key: str, title: str, unit: str = "", digits: int = 2, column: str = "", **more: Any) -> Measure:
    return MEASURES.setdefault(key, Measure(key, title, unit, digits, column, **more))


def _inside(key: str, name: str) -> Callable[[Metrics], float | None]:
    return lambda metrics: metrics.get(key, {}).get(name)


def _losses(metrics: Metrics) -> dict[str, float] | None:
    found = metrics.get("adaptation")
    return found and {"before": found["loss_identity"], "after": found["best_loss"]}


DSC = _add("dsc", "DSC", "", 3, "dsc_{}", higher_is_better=True, per_structure=True)
TRE = _add("tre_mm", "TRE", "mm", 2, "tre_rms_{}_mm")
_add(
    "warped_centroid_mm",
    "distance of warped centroids",
    "mm",
    2,
    "warped_centroid_rms_{}_mm",
    per_structure=True,
    mean=root_mean_square,
)
_add("centre_mm", "distance of centres", "mm", 2, "centre_{}_mm", per_structure=True)
HD95 = _add("hd95_mm", "HD95", "mm", 2, "hd95_{}_mm", per_structure=True)
IMAGE_DISTANCE = _add("image_distance_px", "distance", "px", 2, "distance_{}_px")
_add("distance_px", "distance", "px of the point grid", 2, "distance_grid_{}_px")
_add("inverse_distance_px", "distance in the fixed image", "px of the point grid", 2, "distance_fixed_grid_{}_px")
NCC = _add("ncc", "NCC", "", 3, "ncc_{}", higher_is_better=True)
SIMILARITY = _add("similarity", "similarity term of the loss", "", 3, "similarity_{}")
LOSS = _add("loss", "loss", "", 4, "loss_{}", find=_losses)
_add("loss_start", "loss of the start", "", 4, find=lambda metrics: metrics["loss"][0])
FOLDED = _add("folded_percent", "folded", "%")
_add("network_folded_percent", "folded on the network's grid", "%")
LOG_JACOBIAN_SD = _add("log_jacobian_sd", "SD of the log-Jacobian", "", 3)
LARGEST = _add("largest_displacement_mm", "largest displacement", "mm", 1)
BORDER = _add("border_displacement_mm", "displacement at the border", "mm", 1)
FIELDS_OF_VIEW = _add("overlap_percent", "overlap of the fields of view", "%", 1, higher_is_better=True)
PREDICTED = _add("predicted_overlap", "predicted overlap of the anatomy maps", higher_is_better=True)
_add("search_disagreement_mm", "disagreement of the search", "mm")
_add("inverse_consistency_mm", "inverse consistency", "mm")
_self = _inside("self_displacement_mm", "mean")
_add("self_displacement_mm", "mean displacement on itself", "mm", 2, "self_displacement_mean_mm", find=_self)
_self = _inside("self_displacement_mm", "max")
_add("self_displacement_max_mm", "largest displacement on itself", "mm", find=_self)
for _name, _title in (("mean", "mean"), ("p95", "95 %"), ("max", "largest")):
    _find = _inside("inverse_residual_mm", _name)
    _add(f"inverse_residual_{_name}_mm", f"error of the inverse, {_title}", "mm", 3, find=_find)
SECONDS = _add("seconds", "time", "s", average="median", find=lambda metrics: sum(metrics["seconds"].values()))
_add("seconds_registration", "time to register", "s", average="median", find=_inside("seconds", "registration"))
_add("seconds_per_step", "time per step", "s", 3, average="median")
