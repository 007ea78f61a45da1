"""Training on the images of a datastore: which images, which start, its progress, and whether the result is better."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines import Evaluator, Trainer

from bundle import register
from bundle.apps.label.datastore import Images, numbered_otherwise
from bundle.apps.label.errors import ClientError
from bundle.apps.label.request import FINAL
from bundle.apps.label.settings import ServerSettings
from bundle.data.layouts import SIDES
from bundle.data.splits import split_patients
from bundle.maps import copy_weights, fingerprint_beside
from bundle.system import fingerprint, written_whole
from bundle.system.configurations import find_configurations, load_configurations

OVERLAY = str(Path(__file__).with_name("train.yaml"))
PAIRINGS = {"between patients": "fixed", "within patients": "repeat"}
"""Which images form pairs: the viewer's words -> those of ``bundle.data.read_datalist``."""
LABELS = tuple(f"{side}_label" for side in SIDES)
SHARES = (0.8, 0.2, 0.0)
MAX_ITERATIONS = 100_000


@dataclass(frozen=True)
class Wish:
    """A training that a client asks for.

    Attributes:
        iterations: meta-updates; a few more where epochs of one length do not add up to them.
        pairing: a key of ``PAIRINGS``.
        labels: whether the loss sees the labels; otherwise they only score the validation.
    """

    iterations: int = 200
    pairing: str = "between patients"
    labels: bool = False

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> Wish:
        """Read the parameters of a request.

        No text of the client becomes part of the configuration, where it could be a Python expression.

        Raises:
            ClientError: saying which parameter is wrong.
        """
        iterations = request.get("iterations", cls.iterations)
        pairing = request.get("pairing", cls.pairing)
        pairing = pairing[0] if isinstance(pairing, list) and pairing else pairing
        labels = request.get("labels", cls.labels)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or not 0 < iterations <= MAX_ITERATIONS:
            raise ClientError(f"iterations is {iterations!r}; expected a whole number from 1 to {MAX_ITERATIONS}")
        if pairing not in PAIRINGS:
            raise ClientError(f"pairing is {pairing!r}; expected one of {', '.join(PAIRINGS)}")
        if not isinstance(labels, bool):
            raise ClientError(f"labels is {labels!r}; expected true or false")
        return cls(iterations, pairing, labels)


def split_images(images: Images, wish: Wish) -> dict[str, list[dict[str, Any]]]:
    """Images of a datastore, split by patient into training and validation.

    Patients get numbers: their names are not written into the folder of the training. A training that sees labels is on
    the images that have one. Where a structure has two values, structures correspond by the names they were saved with.

    Args:
        images: images of the datastore.
        wish: says whether the training sees labels.

    Raises:
        ClientError: when there are fewer than four patients, two for each part; when a structure has two values within
            patients, where structures correspond by value.
    """
    # Over DICOMweb, an image's patient is known only after its download.
    files = {image: images.file(image, "image") for image in sorted(images.store.list_images())}
    patients = images.patients()
    numbers = {patient: f"patient_{number}" for number, patient in enumerate(sorted({patients[i] for i in files}))}
    if len(numbers) < 4:
        raise ClientError(
            f"the datastore has images of {len(numbers)} patients; training needs 4, 2 to train on and 2 to validate "
            "with: add images"
        )
    section_of = split_patients(numbers.values(), SHARES, least=2, seed=0)
    sections: dict[str, list[dict[str, Any]]] = {"training": [], "validation": []}
    structures = {image: images.structures(image, FINAL) for image in files if images.label(image, FINAL)}
    first = {name: value for found in reversed(structures.values()) for name, value in found.items()}
    other = next(filter(None, (numbered_otherwise(first, one) for one in structures.values())), "")
    if other and PAIRINGS[wish.pairing] == "repeat":
        raise ClientError(
            f"labels of one patient are compared by value, and {other}; save all in one order of segments"
        )
    for image, file in files.items():
        number = numbers[patients[image]]
        label = images.label(image, FINAL) if wish.labels or section_of[number] == "validation" else None
        if label or not wish.labels or section_of[number] == "validation":
            entry = {"image": str(file), "patient": number}
            named = {"structures": structures[image]} if label and other and structures[image] else {}
            sections[section_of[number]].append(entry | ({"label": str(label)} if label else {}) | named)
    return sections


def prepare(runs: Path, start: Path, settings: ServerSettings, images: Images, wish: Wish) -> ConfigParser:
    """Configuration of a training; the same wish with the same images and weights continues where it stopped.

    Args:
        runs: folder of all trainings.
        start: weights to start from.
        settings: settings of the server.
        images: images of the datastore.
        wish: the client's wish.

    Raises:
        ClientError: when the datastore holds too little to train on.
    """
    # What the server was started with may say which structures its labels have.
    base, *own = settings.train_config
    files = find_configurations([base, *["labels.yaml"] * wish.labels, *own, OVERLAY])
    sections = split_images(images, wish)
    content = load_configurations(files)
    by_value = [each for each in content["structures"] or () if isinstance(each, int)]
    if wish.labels and by_value and any("structures" in image for image in sections["training"]):
        raise ClientError(
            f"the structures of training are the values {by_value}, and the labels number theirs differently; "
            "name them in the overlay of training, as structures: [gland]"
        )
    contents = [file.read_text() for file in files]
    run = runs / fingerprint(fingerprint_beside(start), contents, sections, wish.iterations, wish.pairing)
    # Published weights may change during the training.
    copy_weights(start, run / "start.pt")
    with written_whole(run / "images.json") as file:
        json.dump(sections, file, indent=1)
    chosen = {
        "dataset_dir": str(run),
        "datalist": str(run / "images.json"),
        "output_dir": str(run),
        "start_weights": str(run / "start.pt"),
        "device": f"$torch.device('{settings.device}')",
        "iterations": wish.iterations,
        "pairing": PAIRINGS[wish.pairing],
    }
    return ConfigParser({**content, **chosen})


def scores(pairs: Sequence[Mapping[str, Any]], weights: Path, settings: ServerSettings) -> dict[str, float]:
    """How well weights register pairs: mean loss after adaptation, and mean DSC if there are labels.

    Args:
        pairs: pairs of the validation; labels in which a structure has two values do not count.
        weights: file of the weights.
        settings: settings of the server.
    """
    losses, dsc = [], []
    for pair in pairs:
        names = (pair.get(f"{side}_structures", {}) for side in SIDES)
        sides = {} if numbered_otherwise(*names) else {key: pair[key] for key in LABELS if key in pair}
        found = register(
            pair["fixed_image"],
            pair["moving_image"],
            config_file=settings.config,
            weights=str(weights),
            device=settings.device,
            **sides,
        )
        losses.append(found.metrics["adaptation"]["best_loss"])
        dsc += [entry["after"] for entry in found.metrics.get("dsc", {}).values() if entry["after"] is not None]
    return {"loss": float(np.mean(losses)), **({"dsc": float(np.mean(dsc))} if dsc else {})}


def better(new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Whether weights are better than others: a lower loss, and no lower DSC if there are labels."""
    return new["loss"] < old["loss"] and new.get("dsc", 0.0) >= old.get("dsc", 0.0)


class ProgressFile:
    """Handler that writes the state of a training after every epoch.

    Args:
        path: the file.
        evaluator: engine of the validation, whose metrics are written.
    """

    def __init__(self, path: str, evaluator: Evaluator) -> None:
        self.path = Path(path)
        self.evaluator = evaluator

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer, after the validation handler."""
        engine.add_event_handler(Events.STARTED, self.write)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def write(self, engine: Trainer) -> None:
        """Write the file."""
        validation = {name: float(value) for name, value in self.evaluator.state.metrics.items()}
        state = {
            "epoch": engine.state.epoch,
            "total_epochs": engine.state.max_epochs,
            "iteration": engine.state.iteration,
            "total_iterations": engine.state.max_epochs * engine.state.epoch_length,
            "ts": int(time.time()),
            "validation": {name: value for name, value in validation.items() if value == value},
        }
        with written_whole(self.path) as file:
            json.dump(state, file)


def read_progress(path: Path) -> dict[str, Any]:
    """State of a training as MONAI Label's viewers read it; empty before the first epoch.

    Args:
        path: the file.

    Returns:
        ``epoch``, ``total_epochs``, ``iteration``, ``total_iterations``, ``validation``, and ``best_metric``, which 3D
        Slicer shows as an accuracy: the DSC of the labels, 0 without any.
    """
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {**state, "best_metric": state["validation"].get("val_dsc", 0.0)}
