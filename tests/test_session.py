"""A session ends an engine after the iteration of a signal, and leaves the process as it was."""

import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import Workflow

from bundle.system import threads
from bundle.system.session import Session, command_line


@pytest.fixture(autouse=True)
def own_signals():
    # A shell lets what it starts in the background ignore Ctrl-C, the tests with it.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before
    signal.signal(signal.SIGINT, inherited)


class Toy(Workflow):
    """An engine of five iterations that notes what it did; a signal comes in the middle of one of them."""

    def __init__(self, number=None, epochs=1):
        super().__init__(torch.device("cpu"), epochs, data_loader=list(range(5)))
        self.number, self.done = number, []

    def _iteration(self, engine, batch):
        if self.number is not None and self.state.iteration == 2:
            signal.raise_signal(self.number)  # handled before it returns, which os.kill does not promise
        self.done.append(batch)


def run(session, engine, *within):
    session.start()
    session.run(engine, *within)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_run_after_its_iteration(number, code, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool", "run", "--name", "a b"])
    engine = Toy(number)
    with pytest.raises(SystemExit) as stop:
        run(Session(tmp_path), engine)
    assert engine.done == [0, 1]
    assert stop.value.code == code
    assert capsys.readouterr().out == (
        f"stopped by {signal.Signals(number).name}; what is done is kept, the same command goes on: "
        "python tool run --name 'a b'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_chooses_its_threads_anew(monkeypatch):
    """All runs of an experiment had the one thread of a first that began beside another program."""
    usual, within = torch.get_num_threads(), []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "idle_cores", lambda: 0)
    try:
        torch.set_num_threads(2)
        for _ in range(2):
            engine = Toy()
            engine.add_event_handler(Events.STARTED, lambda _: within.append(torch.get_num_threads()))
            run(Session(None), engine)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
    assert within == [1, 1]


def test_run_without_a_signal_goes_through(tmp_path):
    engine = Toy()
    run(Session(tmp_path), engine, None)
    assert engine.done == [0, 1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []


def test_engine_within_the_run_ends_too():
    inner, outer = Toy(signal.SIGINT), Toy(epochs=4)
    outer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: inner.run())
    with pytest.raises(SystemExit):
        run(Session(None), outer, inner)
    assert inner.done == [0, 1]
    assert outer.state.epoch == 1


def test_second_signal_acts_at_once(tmp_path):
    engine = Toy(signal.SIGINT)
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), lambda engine: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(Session(tmp_path), engine)
    assert engine.done == [0]
    assert list(tmp_path.iterdir()) == []


def test_failed_run_gives_signals_and_folder_back(tmp_path):
    def fail(engine):
        raise ValueError("bad")

    engine = Toy()
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), fail)
    with pytest.raises(ValueError, match="bad"):
        run(Session(tmp_path), engine)
    assert list(tmp_path.iterdir()) == []


def test_command_of_a_module_is_written_with_its_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/pytest/__main__.py", "-q", "a b.py"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(parent="pytest"), raising=False)
    assert command_line() == "python -m pytest -q 'a b.py'"
