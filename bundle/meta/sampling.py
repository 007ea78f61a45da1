"""Episodes: which pairs a meta-iteration trains on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from monai.data import Dataset
from torch.utils.data import DistributedSampler


class EpisodeSampler(DistributedSampler):
    """Draw the episodes of an epoch from all pairs, with the epoch and the seed alone deciding which.

    A run that resumes at epoch ``n`` therefore draws what an uninterrupted run would have drawn. MONAI's trainers
    set the epoch of a distributed sampler, and every process of a multi-GPU run takes its own share.

    Args:
        dataset: the pairs.
        episodes: episodes per epoch over all processes.
        seed: seed of the run.
        rank: number of this process.
        num_replicas: number of processes.
    """

    def __init__(self, dataset: Dataset, episodes: int, seed: int = 0, rank: int = 0, num_replicas: int = 1) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.size = len(dataset)
        self.num_samples = episodes // num_replicas

    def __iter__(self) -> Iterator[int]:
        """Indices into the dataset: full passes in random order, as many as the epoch needs."""
        random = np.random.default_rng([self.seed, self.epoch])
        size = self.size
        total = self.num_samples * self.num_replicas
        passes = [random.permutation(size) for _ in range(-(-total // size))]
        indices = np.concatenate(passes)[:total].tolist()
        return iter(indices[self.rank :: self.num_replicas])
