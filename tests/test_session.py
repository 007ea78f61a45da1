"""A session ends an engine after the iteration of a signal, and leaves the process as it was."""

import os
import signal
import sys

import pytest
from ignite.engine import Engine, Events

from bundle.session import Session, command_line


@pytest.fixture(autouse=True)
def own_signals(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def engine_of(session, number=None, at=2):
    """An engine of five iterations, and what it did; a signal comes in the middle of one of them."""
    done = []

    def iteration(engine, batch):
        if number is not None and engine.state.iteration == at:
            os.kill(os.getpid(), number)
        done.append(batch)

    engine = Engine(iteration)
    session.attach(engine)
    return engine, done


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_run_after_its_iteration(number, code, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool", "run", "--name", "a b"])
    session = Session(tmp_path)
    engine, done = engine_of(session, number)
    session.start()
    engine.run(range(5))
    assert done == [0, 1]
    with pytest.raises(SystemExit) as stop:
        session.end()
    assert stop.value.code == code
    assert capsys.readouterr().out == (
        f"stopped by {signal.Signals(number).name}; what is done is kept, the same command goes on: "
        "python tool run --name 'a b'\n"
    )
    assert not (tmp_path / "run.lock").exists()


def test_run_without_a_signal_goes_through(tmp_path):
    session = Session(tmp_path)
    engine, done = engine_of(session)
    session.start()
    engine.run(range(5))
    session.end()
    assert done == [0, 1, 2, 3, 4]


def test_engine_within_the_run_ends_too():
    session = Session(None)
    inner, done = engine_of(session, signal.SIGINT)
    outer, _ = engine_of(session)
    outer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: inner.run(range(5)))
    session.start()
    outer.run(range(3), max_epochs=4)
    assert done == [0, 1]
    assert outer.state.epoch == 1
    with pytest.raises(SystemExit):
        session.end()


def test_second_signal_acts_at_once(tmp_path):
    session = Session(tmp_path)
    engine, _ = engine_of(session)

    def twice(engine):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    engine.add_event_handler(Events.ITERATION_STARTED(once=2), twice)
    session.start()
    with pytest.raises(KeyboardInterrupt):
        engine.run(range(5))
    assert engine.state.iteration == 2


def test_failed_run_gives_signals_and_folder_back(tmp_path):
    session = Session(tmp_path)
    engine, _ = engine_of(session)

    def fail(engine):
        raise ValueError("bad")

    engine.add_event_handler(Events.ITERATION_STARTED(once=2), fail)
    session.start()
    with pytest.raises(ValueError, match="bad"):
        engine.run(range(5))
    assert not (tmp_path / "run.lock").exists()


def test_session_that_was_not_started_leaves_everything_alone(tmp_path):
    session = Session(tmp_path / "none")
    engine, done = engine_of(session)
    engine.run(range(2))
    assert len(done) == 2
    assert not (tmp_path / "none").exists()


def test_command_of_a_module_is_written_with_its_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/pytest/__main__.py", "-q", "a b.py"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", pytest.__spec__, raising=False)
    assert command_line() == "python -m pytest -q 'a b.py'"
