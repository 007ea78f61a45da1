"""What the processes of a run do together, here as threads, and alone; the mean over the episodes of all."""

import os
import random
import warnings
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread, local

import pytest
import torch
import torch.distributed as dist
from meta_toys import OneWeight, adapted, make_trainer
from monai.bundle import ConfigParser

from bundle.meta.rules import mean_over_episodes
from bundle.system import processes

SECONDS = 600  # nothing here waits that long


class Threads:
    """Threads that stand for the processes of a run: each has its number, and they add tensors up."""

    def __init__(self, monkeypatch, count):
        self.count, self.here, self.results = count, local(), [None] * count
        self.barrier, self.tensors = Barrier(count, timeout=SECONDS), [None] * count
        monkeypatch.setattr(processes, "count", lambda: count)
        monkeypatch.setattr(processes, "number", lambda: self.here.number)
        monkeypatch.setattr(processes, "total", self.total)

    def total(self, tensor):
        self.tensors[self.here.number] = tensor
        self.barrier.wait()
        added = torch.stack(self.tensors[::-1]).sum(0)  # in another order than that of the episodes
        self.barrier.wait()
        return added

    def run(self, work):
        def one(number):
            self.here.number = number
            self.results[number] = work(number)

        threads = [Thread(target=one, args=(number,), daemon=True) for number in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert None not in self.results
        return self.results


@contextmanager
def alone(monkeypatch):
    """As ``torchrun --nproc_per_node=1`` starts a process."""
    environment = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": 0}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    processes.join(torch.device("cpu"), minutes=1)
    assert dist.is_initialized()
    try:
        yield
    finally:
        processes.leave()


# --- sharing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_one_process_takes_all_and_has_all(monkeypatch, joined, even):
    with alone(monkeypatch) if joined else nullcontext():
        assert (processes.count(), processes.number(), processes.is_first()) == (1, 0, True)
        assert processes.share("abc", even) == processes.gather("abc") == ["a", "b", "c"]
        assert processes.share([], even) == processes.gather([]) == []
        assert processes.from_first(lambda: {"epoch": 3}) == {"epoch": 3}
        assert processes.total(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
        network = OneWeight(5.0)
        processes.start_alike(network)
        assert network.weight.item() == 5.0
        processes.check_joined()


@pytest.mark.parametrize(
    ("items", "even", "shares"),
    [
        ("abcde", False, ["ad", "be", "c"]),
        ("abcde", True, ["ad", "be", "ca"]),
        ("a", False, ["a", "", ""]),
        ("a", True, ["a", "a", "a"]),
        ("", True, ["", "", ""]),
        ("abcdef", True, ["ad", "be", "cf"]),
    ],
)
def test_items_are_dealt_in_turn(monkeypatch, items, even, shares):
    monkeypatch.setattr(processes, "count", lambda: len(shares))
    for number, expected in enumerate(shares):
        monkeypatch.setattr(processes, "number", lambda number=number: number)
        assert processes.share(items, even) == list(expected)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_results_are_gathered_in_the_order_of_what_was_dealt(monkeypatch, count):
    shares = [list(range(5))[number::count] for number in range(count)]
    monkeypatch.setattr(processes.idist, "all_gather", lambda own: shares)
    assert processes.gather(shares[0]) == list(range(5))


# --- joining ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (1, "cuda:0"), (4, "cuda:0")])
def test_a_process_alone_takes_the_first_gpu_or_the_cpu(monkeypatch, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes.device() == torch.device(expected)


def test_every_process_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.device() == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="process 3 of this machine has no GPU.*expected 2 processes or fewer"):
        processes.device()


@pytest.mark.parametrize(
    ("gpus", "cores", "count", "expected"),
    [
        (0, 2.0, 99, "--processes is 99; expected 1 to 2, one for each core"),
        (0, 0.5, 2, "--processes is 2; expected 1 to 1, one for each core"),
        (2, 16.0, 3, "--processes is 3; expected 1 to 2, one for each GPU"),
        (0, 2.0, 0, "--processes is 0; expected 1 to 2, one for each core"),
    ],
)
def test_no_more_processes_are_started_than_there_is_room_for(monkeypatch, gpus, cores, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(processes, "allowed_cores", lambda: cores)
    monkeypatch.setattr(processes, "elastic_launch", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match=f"^{expected}$"):
        processes.launch(count, ["register"])


def test_processes_that_did_not_join_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started.*expected configs/overlays/multi_gpu_train.yaml"):
        processes.check_joined()
    with pytest.raises(ValueError, match="or in --config of python -m bundle train$"):  # it refuses --config_file
        processes.check_joined()


def test_only_the_first_process_to_fail_says_so(monkeypatch):
    assert processes.is_first_to_fail()
    assert processes.is_first_to_fail()
    store = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=SECONDS))
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": store.port}.items():
        monkeypatch.setenv(name, str(value))
    assert [processes.is_first_to_fail() for _ in range(3)] == [True, False, False]


def test_a_process_that_can_ask_nobody_says_that_it_failed(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert "MASTER_ADDR" not in os.environ
    assert processes.is_first_to_fail()


# --- averaging ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])  # of five processes, two have no episode
def test_every_episode_counts_alike_wherever_it_was(monkeypatch, count):
    episodes = [[torch.tensor([value, 2 * value]), torch.tensor(10 * value)] for value in (1.0, 2.0, 6.0)]

    def work(number):
        return [tensor.tolist() for tensor in mean_over_episodes(episodes[number::count], like=episodes[0])]

    assert [tensor.tolist() for tensor in mean_over_episodes(episodes, like=episodes[0])] == [[3.0, 6.0], 30.0]
    assert Threads(monkeypatch, count).run(work) == [[[3.0, 6.0], 30.0]] * count


def test_no_episode_has_no_mean():
    (mean,) = mean_over_episodes([], like=[torch.zeros(3)])
    assert mean.isnan().all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_float32_is_the_same_to_the_last_bit(monkeypatch, count):
    random.seed(0)
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** torch.empty(1000).uniform_(-6, 2, generator=generator)
    episodes = [[scales * torch.randn(1000, generator=generator)] for _ in range(7)]
    (whole,) = mean_over_episodes(episodes, like=episodes[0])
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole, torch.stack([tensor for (tensor,) in episodes]).mean(0), rtol=1e-5, atol=1e-6)
    found = Threads(monkeypatch, count).run(lambda number: mean_over_episodes(episodes[number::count], episodes[0])[0])
    assert all(torch.equal(mean, whole) for mean in found)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_that_share_the_episodes_take_the_step_of_one(monkeypatch, count):
    batch, drawn = [3.0, -1.0, 0.5], []

    def augmentation(pair, labels, seed):
        drawn.append((seed, pair.mean().item()))
        return pair, labels

    def work(number):
        network = OneWeight(1.0)
        trainer = make_trainer(network, [batch[number::count]] * 2, augmentation=augmentation)
        trainer.run()
        return network.weight.item(), trainer.state.output[0]["loss_first_step"].item()

    results = Threads(monkeypatch, count).run(work)
    weight = 1.0
    for _ in range(2):
        loss = sum(0.5 * (weight - target) ** 2 for target in batch) / 3
        weight += 0.5 * (sum(adapted(weight, target) for target in batch) / 3 - weight)
    # A few operations in float64.
    assert results == [(pytest.approx(weight, abs=1e-14), pytest.approx(loss, abs=1e-14))] * count
    steps = [(iteration, episode, step) for iteration in (1, 2) for episode in range(3) for step in range(3)]
    assert sorted(drawn) == [((0, *place), batch[place[1]]) for place in steps]


def test_only_deterministic_operations_when_asked(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(warnings, "filters", list(warnings.filters))
    processes.only_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        processes.only_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("config", ["train", "inference", "inference_2d"])
def test_workflows_ask_for_it_by_a_key(config):
    content = ConfigParser.load_config_file(Path(__file__).parents[1] / "configs" / f"{config}.yaml")
    assert content["deterministic"] is False
    assert "$bundle.system.processes.only_deterministic(@deterministic)" in content.get("training", content["run"])
