"""A folder belongs to one process at a time, whatever becomes of that process."""

import errno
import fcntl
import multiprocessing
import os
import signal

import pytest

from bundle.__main__ import experiment
from bundle.system import DataWarning, FolderLock

FORK = multiprocessing.get_context("fork")


def hold(folder, taken):
    lock = FolderLock(folder)
    lock.acquire()
    taken.set()
    signal.pause()


@pytest.fixture
def holder(tmp_path):
    taken = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "out", taken))
    process.start()
    assert taken.wait(600)
    yield process
    process.kill()
    process.join()


def test_another_process_is_refused_with_the_holder_named(holder, tmp_path):
    with pytest.raises(
        RuntimeError, match=f"out is in use by process {holder.pid} on .*give another --output_dir"
    ) as error:
        FolderLock(tmp_path / "out").acquire()
    assert "\n" not in str(error.value)


def test_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.kill()
    holder.join()
    lock = FolderLock(tmp_path / "out")
    lock.acquire()
    assert lock.path.read_text().startswith(f"process {os.getpid()} on ")


def test_a_second_experiment_is_refused_before_it_writes_its_lists(holder, tmp_path):
    """The lists of the first were replaced, by which its later runs train and test."""
    (tmp_path / "data/images").mkdir(parents=True)
    with pytest.raises(RuntimeError, match=f"out is in use by process {holder.pid}"):
        experiment(str(tmp_path / "data"), output_dir=str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.lock"]


def test_nothing_is_left_and_the_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        lock = FolderLock(tmp_path / "out")
        lock.acquire()
        lock.acquire()
        lock.release()
        lock.release()
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_its_holder_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    lock, real, calls = FolderLock(tmp_path), fcntl.lockf, []

    def lockf(file, how):
        calls.append(how)
        if len(calls) == 1:
            lock.path.unlink()
        return real(file, how)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    lock.acquire()
    assert len(calls) == 2
    assert os.path.samestat(os.fstat(lock.file.fileno()), lock.path.stat())


@pytest.mark.parametrize("folder", ["file", "file/results"])
def test_a_file_is_no_folder_of_results(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"{folder} is a file, or in one; give another --output_dir for the"):
        FolderLock(tmp_path / folder).acquire()


def test_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def lockf(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(DataWarning, match="cannot be locked"):
        FolderLock(tmp_path).acquire()
