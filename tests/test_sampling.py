"""Episodes: seeded, fresh in every epoch, every pair before any again, shared among processes."""

import warnings

import numpy as np
import pytest
from monai.data import Dataset

from bundle.meta import EpisodeSampler
from bundle.system import DataWarning


def make_sampler(pairs=5, episodes=12, **settings):
    return EpisodeSampler(Dataset([{"pair_id": str(k)} for k in range(pairs)]), episodes, **settings)


def drawn(epoch=0, **settings):
    sampler = make_sampler(**settings)
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
    whole = drawn(pairs=30, episodes=24, together=6)
    shares = [drawn(pairs=30, episodes=24, together=6, rank=rank, num_replicas=replicas) for rank in range(replicas)]
    assert len(set(whole)) == 24
    assert shares == [whole[rank::replicas] for rank in range(replicas)]


@pytest.mark.parametrize("pairs_per_episode", [1, 2])
def test_processes_share_every_meta_update_when_its_episodes_do_not_divide(pairs_per_episode):
    settings = {"pairs": 40, "episodes": 15, "together": 5, "pairs_per_episode": pairs_per_episode}
    whole, size = drawn(**settings), 5 * pairs_per_episode
    updates = [[], [], []]
    for rank, episodes in ((0, 3), (1, 2)):
        sampler = make_sampler(rank=rank, num_replicas=2, **settings)
        assert sampler.batch_size == episodes * pairs_per_episode
        share = list(sampler)
        for number, update in enumerate(updates):
            update.append(share[number * sampler.batch_size : (number + 1) * sampler.batch_size])
    for number, (first, second) in enumerate(updates):
        assert sorted(first + second) == sorted(whole[number * size : (number + 1) * size])
        assert first[:pairs_per_episode] == whole[number * size :][:pairs_per_episode]


@pytest.mark.parametrize("settings", [{}, {"by_task": False}])
def test_episodes_of_several_pairs_that_no_task_has_are_told(settings):
    """Each took one pair several times, in silence."""
    named = Dataset([{"task": f"task {k // 2}"} for k in range(4)])
    data = named if settings else Dataset([{}, {}])
    with pytest.warns(DataWarning, match="pairs_per_episode is 2, and no task has two pairs"):
        episodes = np.reshape(list(EpisodeSampler(data, 2, pairs_per_episode=2, **settings)), (2, 2))
    assert (episodes[:, 0] == episodes[:, 1]).all()
    with warnings.catch_warnings(action="error"):
        episodes = np.reshape(list(EpisodeSampler(named, 2, pairs_per_episode=2)), (2, 2))
    assert (episodes[:, 0] != episodes[:, 1]).all()


def test_more_processes_than_episodes_of_a_meta_update_are_refused():
    with pytest.raises(ValueError, match="3 processes share 2 episodes per meta-update.*--episodes_per_iteration 3"):
        drawn(episodes=4, together=2, rank=0, num_replicas=3)


def test_one_pair_is_drawn_every_time():
    assert drawn(pairs=1, episodes=3) == [0, 0, 0]


TASKS = ["brain"] * 20 + ["eye"] * 3 + ["liver"] + ["heart"] * 7 + ["hand"] * 2


def drawn_tasks(episodes, **settings):
    sampler = EpisodeSampler(Dataset([{"task": task} for task in TASKS]), episodes, **settings)
    return list(sampler), [TASKS[pair] for pair in sampler]


def test_every_task_counts_alike():
    pairs, tasks = drawn_tasks(100)
    assert {task: tasks.count(task) for task in set(TASKS)} == dict.fromkeys(set(TASKS), 20)
    assert len({pair for pair in pairs if TASKS[pair] == "brain"}) == 20
    eyes = [pair for pair in pairs if TASKS[pair] == "eye"]
    assert set(eyes[:3]) == set(eyes[3:6]) == {20, 21, 22}


def test_the_episodes_of_a_meta_update_are_of_different_tasks():
    _pairs, tasks = drawn_tasks(300, together=3)
    triples = [tuple(tasks[start : start + 3]) for start in range(0, 300, 3)]
    assert all(len(set(triple)) == 3 for triple in triples)
    assert len({frozenset(triple) for triple in triples}) == 10  # every choice of 3 of 5


def test_more_episodes_together_than_tasks_take_whole_passes():
    _pairs, tasks = drawn_tasks(8, together=8)
    assert set(tasks[:5]) == set(TASKS)


def test_tasks_can_be_pooled():
    pairs, _tasks = drawn_tasks(len(TASKS), by_task=False)
    assert sorted(pairs) == list(range(len(TASKS)))


def test_an_episode_may_take_several_pairs_of_its_task():
    pairs, tasks = drawn_tasks(12, together=3, pairs_per_episode=4)
    assert len(pairs) == 48
    episodes = [set(tasks[start : start + 4]) for start in range(0, 48, 4)]
    assert all(len(episode) == 1 for episode in episodes)
    assert all(len(set.union(*episodes[start : start + 3])) == 3 for start in range(0, 12, 3))
    brains = [pairs[start : start + 4] for start in range(0, 48, 4) if tasks[start] == "brain"]
    assert all(len(set(episode)) == 4 for episode in brains)


def test_processes_share_whole_episodes():
    shares = [drawn_tasks(10, together=2, pairs_per_episode=3, rank=rank, num_replicas=2)[0] for rank in (0, 1)]
    whole = drawn_tasks(10, together=2, pairs_per_episode=3)[0]
    assert shares[0][:3] == whole[:3]
    assert shares[1][:3] == whole[3:6]


# --- kinds of pairs -----------------------------------------------------------------------------------------------

SHARES = {"between": 0.65, "repeat": 0.25, "self": 0.1}
KINDS = ["between"] * 30 + ["repeat"] * 4 + ["self"] * 3


def mixed_sampler(episodes, **settings):
    sides = {"between": ("b", "ab"), "repeat": ("b", "a"), "self": ("a", "a")}
    pairs = [{"fixed_image": "a", "moving_image": sides[kind][0], "patient": tuple(sides[kind][1])} for kind in KINDS]
    return EpisodeSampler(Dataset(pairs), episodes, **{"shares": SHARES} | settings)


def counts(pairs):
    return [[KINDS[pair] for pair in pairs].count(kind) for kind in SHARES]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_kind_has_its_share_of_an_epoch(epoch):
    sampler = mixed_sampler(40, seed=2)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert counts(drawn) == [26, 10, 4]
    repeats = [pair for pair in drawn if KINDS[pair] == "repeat"]
    assert set(repeats[:4]) == set(repeats[4:8]) == {30, 31, 32, 33}
    assert len({pair for pair in drawn if KINDS[pair] == "between"}) == 26
    assert [KINDS[pair] for pair in drawn] != sorted(KINDS[pair] for pair in drawn)


def test_shares_hold_on_average_where_an_epoch_is_short():
    sampler, total = mixed_sampler(3), []
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert all(abs(count - 3 * share) < 1 for count, share in zip(counts(drawn), SHARES.values(), strict=True))
        total += drawn
    # Each epoch adds at most 0.5 to the standard deviation of a count: 2000 ** 0.5 * 0.5 = 22, 4 of which are 1.5 %.
    np.testing.assert_allclose(np.array(counts(total)) / 6000, list(SHARES.values()), atol=0.015)


def test_mixed_episodes_repeat_and_resume():
    first, again, whole = (mixed_sampler(20, seed=4) for _ in range(3))
    for sampler in (first, again, whole):
        sampler.set_epoch(3)
    again.leave_out(7)
    assert list(first) == list(whole)
    assert list(again) == list(first)[7:]
    first.set_epoch(4)
    assert list(first) != list(whole)


def test_processes_share_mixed_episodes():
    whole = list(mixed_sampler(24, together=4))
    shares = [list(mixed_sampler(24, together=4, rank=rank, num_replicas=2)) for rank in (0, 1)]
    assert [shares[k % 2][k // 2] for k in range(24)] == whole


def test_a_share_of_nothing_is_never_drawn():
    assert counts(mixed_sampler(50, shares={"between": 0.0, "repeat": 1})) == [0, 50, 0]


def test_paired_stands_for_all_pairs_of_two_images():
    assert counts(mixed_sampler(34, shares={"paired": 1})) == [30, 4, 0]


def test_one_kind_is_drawn_as_without_shares():
    assert list(mixed_sampler(34, shares={"paired": 1}, seed=5)) == drawn(pairs=34, episodes=34, seed=5)


def test_a_kind_without_pairs_is_refused():
    with pytest.raises(ValueError, match="no pair to train on is of the kind between or self, which the shares"):
        EpisodeSampler(Dataset([{"fixed_image": "a", "moving_image": "b", "patient": ("P",)}]), 4, shares=SHARES)
