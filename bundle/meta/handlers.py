"""Ignite handlers of meta-training: checkpoints that survive anything, and progress."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from monai.utils import CommonKeys, optional_import
from tqdm import tqdm

from bundle.meta.checkpoints import NEWEST, PREVIOUS, read_checkpoint
from bundle.meta.sampling import RestOfEpoch
from bundle.system import console, described, processes, written_whole


def save_atomically(content: Any, path: Path, previous: Path | None = None) -> None:
    """``torch.save`` to a temporary name, flushed to disk, then moved into place: the file is complete or the old one.

    Args:
        content: what to save.
        path: final name; missing folders are created.
        previous: new name for an older file; None replaces that file.

    Raises:
        OSError: when the file cannot be written; nothing is left under a temporary name.
    """
    try:
        with written_whole(path, "wb", previous) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot write {path}: {error}") from error


class ResumableCheckpoint:
    """Resume a run from ``checkpoint.pt`` if it is there; write it at the end of every epoch and when the run stops.

    The checkpoint holds the state of everything in ``save_dict``, of the trainer (epochs, iterations, episodes) and of
    the evaluator (best metric). Randomness needs no state: it follows from the seed, the epoch and the iteration. So a
    run that was stopped anywhere, within an epoch or its validation, ends with the same weights as one that was not.
    ``checkpoint_previous.pt`` is the previous one, used if the newest cannot be read. ``model.pt`` holds the flat
    weights of the best validation so far, ``model_last.pt`` those of the last epoch; learned step sizes go beside them,
    as ``model_step_sizes.pt`` and so on. Among several processes the first reads and writes, so only its machine needs
    the folder.

    Args:
        output_dir: folder of the run.
        save_dict: name -> object with ``state_dict`` and ``load_state_dict``, or None for nothing; ``network`` must be
            there.
        settings: what the result depends on, by name; may hold objects. A checkpoint with other settings is refused.
        evaluator: validation engine whose key metric decides which epoch is best; without one, or before it has run,
            the last is.
        interval: epochs between checkpoints; the best weights are written whenever they are found.
        kept_epochs: epochs whose weights are kept, as ``model_epoch_<n>.pt``.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any | None],
        settings: Mapping[str, Any],
        evaluator: Evaluator | None = None,
        interval: int = 1,
        kept_epochs: Sequence[int] = (),
    ) -> None:
        self.folder = Path(output_dir)
        self.path, self.previous = self.folder / NEWEST, self.folder / PREVIOUS
        self.save_dict = {name: item for name, item in save_dict.items() if item is not None}
        self.settings = described(**settings)
        self.evaluator = evaluator
        self.interval = interval
        self.kept_epochs = kept_epochs

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer, after the validation handler, whose result this saves.

        Raises:
            ValueError: for an epoch to keep that the trainer does not have.
        """
        absent = [epoch for epoch in self.kept_epochs if epoch not in range(1, engine.state.max_epochs + 1)]
        if absent:
            raise ValueError(f"kept_epochs has {absent}, and the epochs are 1 to {engine.state.max_epochs}")
        engine.add_event_handler(Events.STARTED, self.resume)
        if not processes.is_first():
            return
        if self.evaluator is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.save_unvalidated)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.TERMINATE, self.save_stopped)

    def resume(self, engine: Trainer) -> None:
        """Load the checkpoint if there is one; errors are those of ``read_checkpoint``."""
        checkpoint = read_checkpoint(self.folder, self.settings)
        if checkpoint is None:
            return
        for name, item in self.save_dict.items():
            item.load_state_dict(checkpoint[name])
        if "episodes" in checkpoint:
            engine.state.episodes = checkpoint["episodes"]
        engine.state.iteration = checkpoint["iteration"]
        engine.state.epoch, begun = divmod(engine.state.iteration, engine.state.epoch_length)
        if self.evaluator is not None:
            self.evaluator.state.best_metric = checkpoint["best_metric"]
            self.evaluator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        engine.logger.info(f"resumed {self.path} after {engine.state.iteration} iterations")
        if begun:
            engine.state.dataloader = RestOfEpoch(engine.state.dataloader, begun)
        elif checkpoint["epoch"] < engine.state.epoch:
            # The run was stopped between the last iteration of an epoch and the end of its validation.
            engine.fire_event(Events.EPOCH_COMPLETED)

    def keep(self, engine: Trainer) -> None:
        """Write the flat weights of an epoch that is to be kept."""
        if engine.state.epoch in self.kept_epochs:
            self._write_weights(f"model_epoch_{engine.state.epoch}")

    def save_unvalidated(self, engine: Trainer) -> None:
        """Write the checkpoint at the last iteration of an epoch, before its validation, which may take a long time."""
        if engine.state.iteration % engine.state.epoch_length == 0 and self._due(engine):
            self._write(engine, epochs=engine.state.epoch - 1)

    def save(self, engine: Trainer) -> None:
        """Write the checkpoint and the flat weights of the epoch, also as the best ones if they are."""
        # A validation that was stopped gives no result; the checkpoint from before it is there.
        if self.evaluator is not None and self.evaluator.should_terminate:
            return
        best = self.evaluator.state.best_metric_epoch if self.evaluator is not None else -1
        if best == engine.state.epoch or (best == -1 and self._due(engine)):
            self._write_weights("model")
        if not self._due(engine):
            return
        self._write_weights("model_last")
        self._write(engine, epochs=engine.state.epoch)

    def save_stopped(self, engine: Trainer) -> None:
        """Write the checkpoint of a run that is stopped; if its epoch is over, the end of the epoch is done again."""
        self._write(engine, epochs=engine.state.epoch - 1)

    def _due(self, engine: Trainer) -> bool:
        return engine.state.epoch % self.interval == 0 or engine.state.epoch == engine.state.max_epochs

    def _write_weights(self, name: str) -> None:
        """Write the flat weights of the network, and learned step sizes in a separate file, or remove older ones.

        They go to other machines, some without a GPU, so the files hold tensors of the CPU.
        """
        for part, suffix in (("step_sizes", "_step_sizes"), ("network", "")):
            path = self.folder / f"{name}{suffix}.pt"
            if part in self.save_dict:
                save_atomically(on_the_cpu(self.save_dict[part].state_dict()), path)
            else:
                path.unlink(missing_ok=True)

    def _write(self, engine: Trainer, epochs: int) -> None:
        """Write the checkpoint with the number of epochs that are over, including their validation."""
        best = self.evaluator.state if self.evaluator is not None else None
        content = {
            **{name: item.state_dict() for name, item in self.save_dict.items()},
            "settings": self.settings,
            "epoch": epochs,
            "iteration": engine.state.iteration,
            **({"episodes": engine.state.episodes} if hasattr(engine.state, "episodes") else {}),
            "best_metric": best.best_metric if best else -1,
            "best_metric_epoch": best.best_metric_epoch if best else -1,
        }
        save_atomically(content, self.path, self.previous)


def on_the_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's state on the CPU; a tensor that the network has under several names is still one tensor."""
    moved: dict[tuple[int, torch.Size], torch.Tensor] = {}
    return {name: moved.setdefault((value.data_ptr(), value.shape), value.cpu()) for name, value in state.items()}


class FiniteLoss:
    """End a run whose loss is no longer finite: nothing that it still learned would be of use."""

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer, before the handler of its checkpoints."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check)

    def check(self, engine: Trainer) -> None:
        """Look at the loss of an iteration.

        Raises:
            FloatingPointError: naming it.
        """
        loss = float(engine.state.output[0][CommonKeys.LOSS])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at iteration {engine.state.iteration}; lower lr, or check the images with "
                "`python -m bundle check_data`"
            )


def keeps_curves() -> bool:
    """Whether this process writes the curves of a training: the first does, where tensorboard is installed."""
    return processes.is_first() and optional_import("tensorboard")[1]


class ProgressBar:
    """Bar over all iterations of a run, with the loss (of the last inner step) and the remaining time.

    Args:
        title: what the run does.
    """

    def __init__(self, title: str = "meta-training") -> None:
        self.title = title
        self.bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _open(self, engine: Engine) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length
        hidden = console.NO_BARS in os.environ
        self.bar = tqdm(total=total, initial=engine.state.iteration, desc=self.title, unit="it", disable=hidden)

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
