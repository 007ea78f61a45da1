"""The training task of the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from bundle.apps.label.datastore import Images
from bundle.apps.label.registrar import ServedWeights
from bundle.apps.label.settings import ServerSettings
from bundle.apps.label.training import PAIRINGS, Wish, better, prepare, read_progress, scores
from bundle.system import written_whole

logger = logging.getLogger(__name__)


class MetaTraining(TrainTask):
    """Meta-train on the images of the datastore, from the served weights.

    MONAI Label calls it in a separate process, and kills that process to stop it. The same request continues from the
    last epoch. After the training, the new weights are served if they register the validation pairs better.

    Args:
        settings: settings of the server.
        served: its weights.
        images: images of its datastore.
        folder: folder for trainings and the state of the last one.
    """

    def __init__(self, settings: ServerSettings, served: ServedWeights, images: Images, folder: Path) -> None:
        super().__init__("Meta-train on the datastore's images, from the served weights")
        self.settings = settings
        self.served = served
        self.images = images
        self.runs = folder / "trainings"
        self.last = folder / "last_training.json"

    def config(self) -> dict[str, Any]:
        """Parameters of a request and their defaults, which viewers let their users edit."""
        return {"iterations": Wish.iterations, "pairing": list(PAIRINGS), "labels": Wish.labels}

    def stats(self) -> dict[str, Any]:
        """State of the last training: epochs, validation, and whether its weights are served."""
        last = self._last()
        return {**read_progress(Path(last["folder"]) / "progress.json"), **last["end"]} if last else {}

    def __call__(self, request: Mapping[str, Any], datastore: object) -> dict[str, Any]:
        """Train, and publish the weights if they are better.

        Args:
            request: ``iterations``, ``pairing``, ``labels``.
            datastore: datastore of the images.

        Returns:
            Scores of the new and the old weights on the validation pairs, and whether the new ones are served.

        Raises:
            ClientError: when there is too little to train on, or a parameter is wrong.
            SystemExit: when it was stopped by a signal.
        """
        wish = Wish.read(request)
        parser = prepare(self.runs, self.served.path, self.settings, self.images, wish)
        folder = Path(parser["output_dir"])
        self._note(folder, {})
        epochs, each = (parser.get_parsed_content(name) for name in ("train::trainer::max_epochs", "epoch_length"))
        logger.info("training: %d meta-updates, in epochs of %d", epochs * each, each)
        pairs = parser.get_parsed_content("pairs")["validation"]
        parser.get_parsed_content("run")
        new, old = (scores(pairs, folder / name, self.settings) for name in ("model.pt", "start.pt"))
        end = {"scores": {"new": new, "old": old}, "published": better(new, old)}
        if end["published"]:
            self.served.publish(folder / "model.pt")
        self._note(folder, end)
        logger.info(
            "the new weights are %s", "better: they are served" if end["published"] else "no better: not served"
        )
        return end

    def _note(self, folder: Path, end: Mapping[str, Any]) -> None:
        with written_whole(self.last) as file:
            json.dump({"folder": str(folder), "end": end}, file)

    def _last(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.last.read_text()))
        except (OSError, ValueError):
            return {}
