"""Images that are augmented anew in every epoch, the same way in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data import CacheDataset
from monai.transforms import Compose


class SeededDataset(CacheDataset):
    """``CacheDataset`` whose random transforms depend only on the seed, the epoch and the item.

    So a run that was stopped continues with the augmentations of one that was not. An epoch should draw each item only
    once: an item drawn twice would look the same.

    Args:
        data: items.
        transform: deterministic transforms, whose results are cached, then random ones.
        seed: seed of the run.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, seed: int = 0) -> None:
        super().__init__(data, transform, progress=False)
        self.seed = seed
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._follow)

    def _follow(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch

    def _transform(self, index: int) -> Any:
        seed = np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0]
        self.transform.set_random_state(seed=int(seed))
        return super()._transform(index)
