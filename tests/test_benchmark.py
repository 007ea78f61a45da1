"""The benchmark: both of its paths do the same work, and it measures what it says."""

import runpy
from itertools import repeat
from pathlib import Path
from queue import Queue

import pytest
import torch

from bundle.registration import adapt

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured():  # pytest-benchmark, where it is installed, has a fixture called benchmark
    return runpy.run_path(str(Path(__file__).parent / "benchmarks/benchmark.py"))


def test_the_fast_path_finds_what_the_plain_path_finds(measured):
    plain, fast = (measured["parts"](kind, 4, 1, CPU) for kind in (True, False))
    with torch.no_grad():
        for parameter in plain[0].parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    fast[0].load_state_dict(plain[0].state_dict())
    pair = torch.rand(1, 2, 24, 32, 24, generator=torch.Generator().manual_seed(0))
    losses, fields = [], []
    for network, loss, optimizer in (plain, fast):
        adaptation = adapt(network, loss, optimizer, repeat((pair, None), 3))
        losses.append(adaptation.losses)
        with torch.no_grad():
            fields.append(adaptation.network(pair))
    assert losses[0].diff().abs().min() > 1e-4
    # bfloat16 keeps 8 bits of a number, and random weights magnify what noise makes of the rest.
    torch.testing.assert_close(losses[1], losses[0], rtol=0.01, atol=1e-3)
    assert (fields[1] - fields[0]).norm() < 0.2 * fields[0].norm()


def test_it_measures_seconds_and_memory(measured):
    results = Queue()
    measured["registration"].__globals__["SHAPE"] = (32, 32, 32)
    for plain in (True, False):
        for files, maps in ((measured["LOCALNET"], False), (("inference.yaml",), True)):
            measured["registration"](plain, 1, 1, CPU, files, maps, results, channels=2)
            registration = results.get()
            assert 0 < registration["network"] < registration["registration"]
            assert registration["peak_gib"] > 0.1
    measured["meta_iteration"](1, CPU, results)
    meta = results.get()
    assert {"bare", "whole"} == set(meta)
    assert min(meta.values()) > 0


def test_growth_is_the_exponent_of_what_was_measured(measured, monkeypatch):
    def quadratic(function, *arguments):
        return {"registration": 3.0 * function.keywords["steps"] ** 2, "peak_gib": 0.1}

    monkeypatch.setitem(measured["growth"].__globals__, "in_a_process", quadratic)
    found = measured["growth"](CPU, 1, {"steps": [2, 4, 8]})
    assert found["steps"]["exponent"] == pytest.approx(2)
    assert [row["seconds"] for row in found["steps"]["rows"]] == [12.0, 48.0, 192.0]
