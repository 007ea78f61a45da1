"""Threads of a run: one for every idle core, unless the user says otherwise."""

import pytest
import torch

from bundle.system import threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Four cores, of which a number is idle; answers with the number of threads and what was said."""

    def run(idle, quota="max 100000", stat=True):
        clock = iter([0.0, threads.WATCHED])
        counts = iter([1000.0, 1000.0 + 100 * threads.WATCHED * idle])

        class Stat:
            @staticmethod
            def read_text():
                if not stat:
                    raise FileNotFoundError
                return f"cpu  5 6 7 {next(counts):.0f} 0 0 0 0 0 0\ncpu0 1 2"

        (tmp_path / "cpu.max").write_text(quota + "\n")
        monkeypatch.setattr(threads, "STAT", Stat)
        monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
        monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(threads.os, "sysconf", lambda name: 100)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        chosen = []
        monkeypatch.setattr(torch, "set_num_threads", chosen.append)
        threads.choose_threads()
        return chosen

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return run


@pytest.mark.parametrize(("idle", "chosen"), [(4, []), (3.6, []), (3.4, [3]), (2, [2]), (0.9, [1]), (0, [1])])
def test_there_are_as_many_threads_as_idle_cores_and_at_least_one(machine, idle, chosen, capsys):
    assert machine(idle) == chosen
    said = f"using {chosen[0]} of 4 threads: no more cores are free" if chosen else ""
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize(("quota", "chosen"), [("200000 100000", [2]), ("250000 100000", [2]), ("50000 100000", [1])])
def test_a_container_that_may_use_fewer_cores_gets_fewer_threads(machine, quota, chosen):
    assert machine(4, quota) == chosen


def test_the_user_decides(machine, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert machine(1) == []
    assert capsys.readouterr().out == ""


def test_a_system_that_does_not_tell_keeps_the_usual_number(machine):
    assert machine(0, stat=False) == []
    assert machine(0, quota="nonsense", stat=False) == []


def test_this_machine_tells():
    idle = threads.idle_cores()
    assert idle is None or -0.5 <= idle <= threads.os.cpu_count() + 0.5
    assert 1 <= threads.allowed_cores() <= threads.os.cpu_count()
