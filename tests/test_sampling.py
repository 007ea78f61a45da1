"""Episodes: seeded, fresh in every epoch, every pair before any again, shared among processes."""

import pytest
from monai.data import Dataset

from bundle.meta import EpisodeSampler


def drawn(epoch=0, pairs=5, episodes=12, **settings):
    sampler = EpisodeSampler(Dataset(list(range(pairs))), episodes, **settings)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def test_same_seed_and_epoch_draw_the_same_episodes():
    assert drawn(epoch=3, seed=7) == drawn(epoch=3, seed=7)


def test_seed_and_epoch_change_the_episodes():
    draws = [drawn(seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(draw) for draw in draws}) == 4


def test_all_pairs_are_drawn_before_any_repeats():
    episodes = drawn(episodes=12)
    assert len(episodes) == 12
    assert set(episodes[:5]) == set(episodes[5:10]) == set(range(5))
    assert len(set(episodes[10:])) == 2
    assert episodes[:5] != episodes[5:10]


def test_fewer_episodes_than_pairs_are_different_pairs():
    episodes = drawn(pairs=9, episodes=4)
    assert len(episodes) == len(set(episodes)) == 4


@pytest.mark.parametrize("replicas", [2, 3])
def test_processes_share_the_episodes_of_one(replicas):
    shares = [drawn(pairs=30, episodes=24, rank=rank, num_replicas=replicas) for rank in range(replicas)]
    assert [len(share) for share in shares] == [24 // replicas] * replicas
    assert sorted(sum(shares, [])) == sorted(drawn(pairs=30, episodes=24))
    assert len(set(sum(shares, []))) == 24


def test_one_pair_is_drawn_every_time():
    assert drawn(pairs=1, episodes=3) == [0, 0, 0]
