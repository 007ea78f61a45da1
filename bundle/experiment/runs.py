"""Where the runs of an experiment are, and how they are compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import system  # whose fingerprint is imported when it is used, with torch
from bundle.evaluation.measures import DSC, HD95, TRE, Measure

LONGEST_NAME = 100


def slug(text: str) -> str:
    """A name that is fit for a file; of a long text, its beginning and a fingerprint."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}_{system.fingerprint(text)[:8]}"


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
