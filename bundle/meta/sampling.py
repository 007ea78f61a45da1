"""Episodes: which pairs a meta-iteration trains on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from monai.data import Dataset
from torch.utils.data import DistributedSampler

from bundle.data import check_mixture, of_kinds
from bundle.system import DataWarning, processes


class EpisodeSampler(DistributedSampler):
    """Draw the episodes of an epoch; only the epoch and the seed decide which.

    Tasks are drawn in full passes, each in a new random order. The pairs of a task are drawn in the same way, so every
    task counts equally, however many pairs it has. A pair without a named task is a task of its own.

    With shares, an epoch has ``share * episodes`` episodes of each kind of pair, rounded up or down at random so that
    the mean over the epochs is the share. The kinds are in random order; within each, tasks and pairs are drawn as
    above.

    A run that resumes at epoch ``n`` draws what an uninterrupted run would have drawn. MONAI's trainers set the
    epoch of a distributed sampler. The processes of a run take the episodes of every meta-update in turn.

    Args:
        dataset: the pairs.
        episodes: episodes per epoch over all processes.
        seed: seed of the run.
        rank: number of this process; None asks ``bundle.system.processes``.
        num_replicas: number of processes; None asks ``bundle.system.processes``.
        by_task: whether the key ``task`` of a pair names its task (Park et al. 2021, section 2); if False, pairs have
            no named tasks.
        together: episodes of one meta-update. They are of different tasks if there are enough tasks; for this, a pass
            leaves out its remaining tasks. With shares, this applies to consecutive episodes of one kind.
        pairs_per_episode: pairs drawn for an episode, one after the other, all of the same task.
        shares: share of each kind of pair (:mod:`bundle.data.pairing`), which sum to 1; None draws from all pairs.

    Attributes:
        batch_size: pairs of a meta-update that this process takes.

    Raises:
        ValueError: when there are more processes than episodes of a meta-update, or a kind with a share has no pair.

    Warns:
        DataWarning: when an episode is to have several pairs, and no task has two.
    """

    def __init__(
        self,
        dataset: Dataset,
        episodes: int,
        seed: int = 0,
        rank: int | None = None,
        num_replicas: int | None = None,
        by_task: bool = True,
        together: int = 1,
        pairs_per_episode: int = 1,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        rank = processes.number() if rank is None else rank
        num_replicas = processes.count() if num_replicas is None else num_replicas
        if num_replicas > together:
            raise ValueError(
                f"{num_replicas} processes share {together} episodes per meta-update, and some would have none; "
                f"expected --episodes_per_iteration {num_replicas} or more, or fewer processes"
            )
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.episodes = episodes
        self.own = [episode for episode in range(episodes) if episode % together % num_replicas == rank]
        self.num_samples = len(self.own) * pairs_per_episode
        self.batch_size = len(range(rank, together, num_replicas)) * pairs_per_episode
        self.shares, kinds = [1.0], [list(range(len(dataset.data)))]
        if shares is not None:
            check_mixture(shares)
            found = of_kinds(dataset.data, shares)
            empty = [kind for kind, members in found.items() if not members]
            if empty:
                raise ValueError(
                    f"no pair to train on is of the kind {' or '.join(empty)}, which the shares {dict(shares)} name; "
                    "read the data with this mixture, or leave the kind out"
                )
            self.shares, kinds = [shares[kind] for kind in found], list(found.values())
        self.kinds = [_tasks(dataset.data, members, by_task) for members in kinds]
        alone = all(len(task) == 1 for tasks in self.kinds for task in tasks)
        if pairs_per_episode > 1 and alone and rank == 0:
            warnings.warn(
                f"pairs_per_episode is {pairs_per_episode}, and no task has two pairs: every episode takes one pair "
                "again and again; name the tasks of the pairs, leave by_task true, or set pairs_per_episode to 1",
                DataWarning,
                stacklevel=2,
            )
        self.together = together
        self.pairs_per_episode = pairs_per_episode
        self.left_out = 0

    def leave_out(self, pairs: int) -> None:
        """Leave out this number of pairs of this process in the next pass, and none after that."""
        self.left_out = pairs

    def __iter__(self) -> Iterator[int]:
        """Indices into the dataset, as many as the epoch needs."""
        left_out, self.left_out = self.left_out, 0
        random = np.random.default_rng([self.seed, self.epoch])
        order = self._order()
        queues = [iter(self._draw(tasks, int((order == kind).sum()), random)) for kind, tasks in enumerate(self.kinds)]
        drawn = [next(queues[kind]) for kind in order]
        return iter([pair for episode in self.own for pair in drawn[episode]][left_out:])

    def _order(self) -> np.ndarray:
        """Number of the kind of each episode of the epoch.

        The shares divide ``[0, episodes)`` into intervals, and ``u, 1 + u, 2 + u, ...`` with one random ``u`` in [0, 1)
        fall into one each (systematic sampling); then the order is random.
        """
        random = np.random.default_rng([self.seed, self.epoch, 1])
        # Rounded, so that 0.65 + 0.25 of 20 episodes ends at 18.
        ends = np.round(np.cumsum(self.shares) * self.episodes, 6)[:-1]
        return random.permutation(np.searchsorted(ends, np.arange(self.episodes) + random.random(), side="right"))

    def _draw(self, tasks: list[list[int]], episodes: int, random: np.random.Generator) -> list[list[int]]:
        """Pairs of a number of episodes of one kind."""
        count = len(tasks)
        kept = count // self.together * self.together or count
        passes = [random.permutation(count)[:kept] for _ in range(-(-episodes // kept))]
        left: list[list[int]] = [[] for _ in tasks]
        drawn = []
        for task in np.concatenate([np.empty(0, dtype=int), *passes])[:episodes]:
            episode = []
            for _ in range(self.pairs_per_episode):
                left[task] = left[task] or random.permutation(tasks[task]).tolist()
                episode.append(left[task].pop())
            drawn.append(episode)
        return drawn


def _tasks(pairs: Sequence[Mapping[str, Any]], members: list[int], by_task: bool) -> list[list[int]]:
    """Pairs of each task among some of the pairs; a pair without a named task is one of its own."""
    found: dict[str | int, list[int]] = {}
    for index in members:
        found.setdefault(pairs[index].get("task", index) if by_task else index, []).append(index)
    return list(found.values())


class RestOfEpoch:
    """A data loader that begins in the middle of an epoch: its first pass skips batches, later ones are complete.

    Args:
        loader: the data loader; with an ``EpisodeSampler``, nothing is loaded for skipped batches.
        batches: how many to skip.
    """

    def __init__(self, loader: Iterable[Any], batches: int) -> None:
        self.loader = loader
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        """The batches of a pass."""
        batches, self.batches = self.batches, 0
        sampler = getattr(self.loader, "sampler", None)
        if not isinstance(sampler, EpisodeSampler):
            return islice(iter(self.loader), batches, None)
        sampler.leave_out(batches * self.loader.batch_size)  # type: ignore[attr-defined]
        return iter(self.loader)
