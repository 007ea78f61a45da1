"""Registration of a list of pairs: MONAI's evaluator, where one bad pair does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from bundle.data import SIDES
from bundle.results.outputs import check_beside
from bundle.results.resume import beside_others, images_known_by, is_finished, read_finished
from bundle.system import fingerprint, one_line, root_cause, sources

PAIR_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError)
"""Errors that a pair's data can cause; anything else is a bug of the program and stops the run."""


class PairDataset(Dataset):
    """Preprocessed pairs. A pair that cannot be read yields its error instead.

    With ``settings``, which ``FinishedPairs`` sets, every pair has a ``fingerprint`` of its files and settings. A pair
    whose results are there with the same fingerprint yields their folder as ``finished`` instead. A pair without a name
    of its own gets another one if its folder holds the result of other images.

    Args:
        data: pairs, as from ``bundle.data.read_datalist``.
        transform: preprocessing.
        output_dir: folder of the pairs' results; None for no results.

    Raises:
        ValueError: when that is within the folder of an image, such as a DICOM series.
    """

    settings: str | None = None

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Any = None,
        output_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if output_dir is not None:
            check_beside(Path(output_dir), {pair[f"{side}_image"] for pair in data for side in SIDES}, "output_dir ")
        super().__init__(data if output_dir is None else beside_others(data, Path(output_dir)), transform)
        self.output_dir = output_dir

    def _transform(self, index: int) -> Mapping[Hashable, Any]:
        pair = self.data[index]
        try:
            if self.output_dir is None:
                return super()._transform(index)
            if self.settings is None:
                return {**super()._transform(index), **images_known_by(pair)}
            made_of, folder = fingerprint(self.settings, sources(pair)), Path(self.output_dir, pair["pair_id"])
            if is_finished(folder, made_of):
                return {"pair_id": pair["pair_id"], "finished": str(folder)}
            return {**super()._transform(index), "fingerprint": made_of, **images_known_by(pair)}
        except PAIR_ERRORS as error:
            return {"pair_id": pair["pair_id"], "error": one_line(root_cause(error))}


class RegistrationEvaluator(SupervisedEvaluator):
    """``SupervisedEvaluator`` that reports a failed pair and continues with the next.

    ``engine.state.output`` of a failed pair is ``[{"pair_id": ..., "error": ...}]``; that of a pair finished earlier
    has its ``metrics`` and ``finished``. Arguments are those of ``SupervisedEvaluator``.
    """

    def run(self, global_epoch: int = 1) -> None:
        """Run as MONAI does, but let a process without pairs take part in what all processes do at the end."""
        if self.state.epoch_length == 0:
            self.fire_event(Events.COMPLETED)
        else:
            super().run(global_epoch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        pair_id = batchdata["pair_id"][0]
        if "error" in batchdata:
            return self._failed(pair_id, batchdata["error"][0])
        try:
            if "finished" in batchdata:
                self.state.output = [read_finished(Path(batchdata["finished"][0]))]
                return self.state.output
            return super()._iteration(engine, batchdata)
        except PAIR_ERRORS as error:
            return self._failed(pair_id, one_line(root_cause(error)))

    def _failed(self, pair_id: str, error: str) -> list[dict[str, str]]:
        error = error.removeprefix(f"pair {pair_id}: ")
        self.logger.error(f"pair {pair_id} failed: {error}")
        self.state.output = [{"pair_id": pair_id, "error": error}]
        return self.state.output
