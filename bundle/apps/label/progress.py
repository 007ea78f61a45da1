"""How far a training is, in a file that the server reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Evaluator, Trainer

from bundle.data import written_whole


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
        """Register with a trainer; put it after the validation handler."""
        engine.add_event_handler(Events.STARTED, self.write)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def write(self, engine: Trainer) -> None:
        """Write the file."""
        validation = {name: float(value) for name, value in self.evaluator.state.metrics.items()}
        state = {
            "epoch": engine.state.epoch,
            "total_epochs": engine.state.max_epochs,
            "iteration": engine.state.iteration,
            "ts": int(time.time()),
            "validation": {name: value for name, value in validation.items() if value == value},
        }
        with written_whole(self.path) as file:
            json.dump(state, file)


def read_progress(path: Path) -> dict[str, Any]:
    """State of a training as MONAI Label's viewers read it; nothing before the first epoch.

    Args:
        path: the file.

    Returns:
        ``epoch``, ``total_epochs``, ``iteration``, ``validation``, and ``best_metric``, which 3D Slicer shows as an
        accuracy: the DSC of the labels, 0 without any.
    """
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {**state, "best_metric": state["validation"].get("val_dsc", 0.0)}
