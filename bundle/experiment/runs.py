"""Where the runs of an experiment are, what they depend on, and how they are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import system  # whose fingerprint is imported when it is used, with torch
from bundle.evaluation.measures import DSC, HD95, TRE, Measure
from bundle.evaluation.table import read_table
from bundle.system.configurations import load_configurations
from bundle.system.files import BUNDLE_ROOT
from bundle.system.text import is_language

Plan = Mapping[str, Any]
"""Plan of an experiment, as ``read_plan`` gives it."""
Entry = Mapping[str, Any]
"""One of its trainings, methods or evaluations."""

NOT_REGISTERED = "not registered"
"""Name of the pairs as they are before registration, in tables and figures."""
LONGEST_NAME = 100
"""Bytes."""


def slug(text: str) -> str:
    """Its letters and digits of any script, fit for a file; of a long text, its beginning and a fingerprint."""
    name = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", text).lower()).strip("_")
    start = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return name if start == name else f"{start}_{system.fingerprint(text)[:8]}"


@dataclass(frozen=True)
class Run:
    """How a method registers pairs; methods with equal runs are one.

    Attributes:
        name: of the folder of its results.
        source: training that its weights come from; None starts from weights in the options, or from none.
        epoch: of that training; None is its end.
        steps: gradient steps; None is the configuration's number.
        configs: files of the network, then the method's own.
        options: the method's own.
        maps: trainings of the map networks, as in a plan.
    """

    name: str
    source: str | None
    epoch: int | None
    steps: int | None
    configs: Sequence[str]
    options: Mapping[str, Any]
    maps: Any


@dataclass(frozen=True)
class Curves:
    """Accuracy over a number that a method has.

    Attributes:
        starts: name of the start -> number of steps or epochs -> folder of the run.
        over: ``steps`` at test time, or ``epochs`` of the training of the weights.
        level: method whose accuracy is drawn as a dotted line; None draws none.
    """

    starts: Mapping[str, Mapping[int, Path]]
    over: str = "steps"
    level: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Runs of inference over the same pairs.

    Attributes:
        title: what the pairs are, such as ``Between patients``.
        runs: name of the method -> folder of its run, in the order of the table.
        reference: method against which the others are tested.
        curves: further runs of some methods.
        measures: shown in this order, if the runs have them; the first two also as figures.
        dataset_dir: folder at which relative paths of the runs' datalists start; without it, such pairs have no slices.
    """

    title: str
    runs: Mapping[str, Path]
    reference: str
    curves: Curves = Curves({})
    measures: Sequence[Measure] = (DSC, TRE, HD95)
    dataset_dir: Path | None = None


def own_files(entry: Entry, training: Entry) -> list[str]:
    """Configuration files of an entry: those of its network, or else of its training's, then its own."""
    return [*entry.get("network", training.get("network", [])), *entry.get("configs", [])]


def training_files(plan: Plan, training: Entry) -> list[str]:
    """Configuration files of the training of a registration network."""
    return ["train.yaml", *plan["configs"], *own_files(training, training)]


def run_of(plan: Plan, name: str, point: Mapping[str, int] | None = None) -> Run:
    """How a method registers; for a point of a curve, with other ``steps`` or another ``epoch`` than its own."""
    method = {**plan["methods"][name], **(point or {})}
    training = plan["trainings"].get(method.get("training"), {})
    source, epoch, steps = (method.get(key) for key in ("training", "epoch", "steps"))
    if epoch == 0:
        source, epoch = training["start"], None
    options = method.get("options", {})
    overlays = [Path(file).stem for file in own_files(method, {})]
    own = [f"{key}_{value}" for key, value in options.items()]
    numbers = [f"{value} {name}" for name, value in (("epoch", epoch), ("steps", steps)) if value is not None]
    folder = slug(" ".join([source or "random start", *overlays, *own, *numbers]))
    return Run(folder, source, epoch, steps, own_files(method, training), options, training.get("maps"))


def methods_of(plan: Plan, evaluation: Entry) -> list[str]:
    """Methods that register the pairs of an evaluation: those that it names, or all."""
    return list(evaluation.get("methods") or plan["methods"])


def reference_of(plan: Plan, evaluation: Entry) -> str:
    """Method that the others of an evaluation are compared with: its own, or that of all."""
    return evaluation.get("reference", plan["reference"])


def registration_files(plan: Plan, made: Run) -> list[str]:
    """Configuration files of a run of an evaluation."""
    return ["inference.yaml", *plan["configs"], *made.configs]


def registration_options(plan: Plan, title: str, made: Run) -> dict[str, Any]:
    """Options of a run of an evaluation: those that all share, those of the evaluation, the method's own."""
    options = {**plan["inference_options"], **plan["evaluations"][title].get("options", {}), **made.options}
    return options if made.steps is None else options | {"steps": made.steps}


def programs(files: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """What is in the files of the command that a run registers with, if it has one: an edited program is another."""
    from bundle.system.fingerprints import programs_of  # with torch

    command = {**load_configurations(files), **options}.get("command")
    return [] if command is None or isinstance(command, str) and is_language(command) else programs_of(command)


def is_whole(folder: Path) -> bool:
    """Whether the folder of a finished run still holds the results of every pair that its table calls done."""
    done = [row["pair_id"] for row in read_table(folder) if row["status"] == "done"]
    return all((folder / pair / "metrics.json").is_file() for pair in done)


def find_weights(name: str) -> Path:
    """Weights of a file, or of this package, such as ``models/model.pt``.

    Raises:
        ValueError: when there are none.
    """
    for path in (Path(name), BUNDLE_ROOT / name):
        if path.is_file():
            return path
    raise ValueError(f"weights not found: {name}; give a file, or a name such as models/model.pt")


def of_weights(weights: str | None) -> list[Path]:
    """Weights and what belongs to them, such as maps: files beside them that are named after them."""
    if weights is None:
        return []
    path = Path(weights)
    return [path, *sorted(path.parent.glob(f"{path.stem}_*.pt"))]
