"""Registration of a list of pairs: MONAI's evaluator, in which one bad pair does not stop the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from bundle.data import one_line, root_cause

PAIR_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError)
"""What a pair's data can cause; anything else is a fault of the program and stops the run."""


class PairDataset(Dataset):
    """Preprocessed pairs, where a pair that cannot be read yields its error instead.

    Args:
        data: pairs, as from ``bundle.data.read_datalist``.
        transform: preprocessing.
    """

    def _transform(self, index: int) -> Mapping[Hashable, Any]:
        try:
            return super()._transform(index)
        except PAIR_ERRORS as error:
            return {"pair_id": self.data[index]["pair_id"], "error": one_line(root_cause(error))}


class RegistrationEvaluator(SupervisedEvaluator):
    """``SupervisedEvaluator`` that reports a pair that fails and goes on with the next.

    ``engine.state.output`` of a failed pair is ``[{"pair_id": ..., "error": ...}]``. Arguments are those of
    ``SupervisedEvaluator``.
    """

    def run(self, global_epoch: int = 1) -> None:
        """As in MONAI, but a process that has no pair takes part in what all processes do at the end."""
        if self.state.epoch_length == 0:
            self.fire_event(Events.COMPLETED)
        else:
            super().run(global_epoch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        pair_id = batchdata["pair_id"][0]
        if "error" in batchdata:
            return self._failed(pair_id, batchdata["error"][0])
        try:
            return super()._iteration(engine, batchdata)
        except PAIR_ERRORS as error:
            return self._failed(pair_id, one_line(root_cause(error)))

    def _failed(self, pair_id: str, error: str) -> list[dict[str, str]]:
        error = error.removeprefix(f"pair {pair_id}: ")
        self.logger.error(f"pair {pair_id} failed: {error}")
        self.state.output = [{"pair_id": pair_id, "error": error}]
        return self.state.output
