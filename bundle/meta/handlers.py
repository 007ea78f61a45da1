"""Ignite handlers of meta-training: checkpoints that survive anything, and progress."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from monai.utils import CommonKeys
from tqdm import tqdm

from bundle import processes
from bundle.data import brief, written_whole


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` to a temporary name, flushed to disk, then moved into place: the file is whole or the old one.

    Args:
        content: what to save.
        path: final name; missing folders are created.

    Raises:
        OSError: when the file cannot be written; nothing is left under a temporary name.
    """
    try:
        with written_whole(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot write {path}: {error}") from error


class ResumableCheckpoint:
    """Resume a run from ``checkpoint.pt`` if it is there, and write it at the end of every epoch.

    The checkpoint holds the state of everything in ``save_dict``, of the trainer (epoch, iteration) and of the
    evaluator (best metric). Randomness needs no state: it follows from the seed, the epoch and the iteration.
    ``model.pt`` holds the flat weights of the best validation so far, ``model_last.pt`` those of the last epoch.
    Of several processes the first reads and writes, so that only its machine needs the folder.

    Args:
        output_dir: folder of the run.
        save_dict: name -> object with ``state_dict`` and ``load_state_dict``; ``network`` must be there.
        settings: what the result depends on; a checkpoint made with others is refused.
        evaluator: validation engine whose key metric decides what is best; without one the last epoch is.
        interval: epochs between checkpoints.
        kept_epochs: epochs whose weights stay, as ``model_epoch_<n>.pt``.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any],
        settings: Mapping[str, Any],
        evaluator: Evaluator | None = None,
        interval: int = 1,
        kept_epochs: Sequence[int] = (),
    ) -> None:
        self.folder = Path(output_dir)
        self.path = self.folder / "checkpoint.pt"
        self.save_dict = save_dict
        self.settings = {key: str(value) for key, value in settings.items()}
        self.evaluator = evaluator
        self.interval = interval
        self.kept_epochs = kept_epochs

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer; put it after the validation handler, whose result it saves."""
        engine.add_event_handler(Events.STARTED, self.resume)
        if not processes.is_first():
            return
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def resume(self, engine: Trainer) -> None:
        """Load ``checkpoint.pt`` if there is one.

        Raises:
            ValueError: when it was made with other settings or is not a checkpoint of this bundle.
        """
        checkpoint = processes.from_first(self._read)
        if checkpoint is None:
            return
        stored = checkpoint["settings"]
        changed = [
            f"{key} was {stored.get(key)}, is {value}"
            for key, value in self.settings.items()
            if stored.get(key) != value
        ]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings ({'; '.join(changed)}); "
                "give another --output_dir, or the same settings to continue that run"
            )
        for name, item in self.save_dict.items():
            item.load_state_dict(checkpoint[name])
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = checkpoint["best_metric"]
            self.evaluator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        engine.logger.info(f"resumed {self.path} after {engine.state.iteration} iterations")

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            # What it is loaded into knows its device, which is another one in every process.
            checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
            return {**checkpoint, "settings": dict(checkpoint["settings"])}
        except Exception as error:
            raise ValueError(
                f"{self.path} cannot be read as a checkpoint ({brief(error)}); move it away to start anew"
            ) from error

    def keep(self, engine: Trainer) -> None:
        """Write the flat weights of an epoch that is to be kept."""
        if engine.state.epoch in self.kept_epochs:
            weights = self.save_dict["network"].state_dict()
            save_atomically(weights, self.folder / f"model_epoch_{engine.state.epoch}.pt")

    def save(self, engine: Trainer) -> None:
        """Write the checkpoint, and the flat weights when this epoch is the best so far."""
        best = self.evaluator.state if self.evaluator is not None else None
        save_atomically(
            {
                **{name: item.state_dict() for name, item in self.save_dict.items()},
                "settings": self.settings,
                "epoch": engine.state.epoch,
                "iteration": engine.state.iteration,
                "best_metric": best.best_metric if best else -1,
                "best_metric_epoch": best.best_metric_epoch if best else -1,
            },
            self.path,
        )
        weights = self.save_dict["network"].state_dict()
        if best is None or best.best_metric_epoch == engine.state.epoch:
            save_atomically(weights, self.folder / "model.pt")
        save_atomically(weights, self.folder / "model_last.pt")


class ProgressBar:
    """Bar over all meta-iterations of a run, with the loss of the last inner step and the time to go."""

    bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _open(self, engine: Engine) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length
        self.bar = tqdm(total=total, initial=engine.state.iteration, desc="meta-training", unit="it")

    def _update(self, engine: Engine) -> None:
        if engine.state.iteration % 10 == 0:
            self.bar.set_postfix(loss=f"{float(engine.state.output[0][CommonKeys.LOSS]):.4f}", refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        # The run may fail before the bar is there.
        if self.bar is not None:
            self.bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close(engine)
        raise error
