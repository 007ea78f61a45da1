"""A run from start to end: alone in its output folder, and stopped cleanly by Ctrl-C and SIGTERM."""

from __future__ import annotations

import atexit
import errno
import fcntl
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
import warnings
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import IO, Any

import torch
from ignite.engine import Events
from monai.data import worker_init_fn
from monai.engines import Trainer, Workflow

from bundle.system import processes
from bundle.system.errors import DataWarning
from bundle.system.threads import choose_threads

TAKEN = (errno.EACCES, errno.EAGAIN)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class FolderLock:
    """Keeps other processes out of an output folder by a lock on the file ``run.lock`` in it.

    The operating system holds the lock (POSIX), not the file: it ends with its process, however that ends, and the
    workers of a data loader do not inherit it. The file says which process holds it.

    Args:
        folder: the folder; created if missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "run.lock"
        self.file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RuntimeError: when another process has it, naming that process.
        """
        if self.file is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                f"{self.path.parent} is a file, or in one; give another --output_dir for the results"
            ) from error
        while self.file is None:
            file = self.path.open("a+")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip()
                file.close()
                if error.errno in TAKEN:
                    raise RuntimeError(
                        f"{self.path.parent} is in use by {holder or 'another process'}; "
                        "wait for it, stop it, or give another --output_dir"
                    ) from error
                warnings.warn(f"{self.path.parent} cannot be locked ({error.strerror})", DataWarning, stacklevel=2)
                return
            # Its holder may have removed the file after it was opened here and before it was locked.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                self.file = file
            else:
                file.close()
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()

    def __enter__(self) -> FolderLock:
        """Take the lock."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self.file is not None:
            self.path.unlink(missing_ok=True)
            self.file.close()
            self.file = None


class Session:
    """What a configuration does around its engine: ``start``, then ``run``.

    A signal ends the engine after the current iteration, so that nothing finished is lost. A second signal acts at
    once, as it does without a session.

    Args:
        output_dir: folder of the run, into which no other run may write; None locks nothing.
    """

    def __init__(self, output_dir: str | os.PathLike[str] | None) -> None:
        self.lock = FolderLock(output_dir) if output_dir is not None and processes.is_first() else None
        self.signal: int | None = None
        self.before: dict[int, Any] = {}
        self.process = os.getpid()
        self.threads: int | None = None

    def start(self) -> None:
        """Lock the folder, before anything is written into it, and choose the number of threads.

        Raises:
            RuntimeError: when another process writes into the folder.
        """
        if self.lock is not None:
            self.lock.acquire()
            atexit.register(self._unlock)
        self.threads = choose_threads()

    def run(self, engine: Workflow, *within: Workflow | None) -> None:
        """Run an engine, then unlock the folder and give torch its threads back.

        If the run was stopped, print the command that continues it.

        Args:
            engine: the trainer or evaluator.
            within: engines that run within it and are stopped as well, such as the validation.

        Raises:
            SystemExit: with 128 + the signal's number (130 for Ctrl-C, 143 for SIGTERM) when the run was stopped.
        """
        engines = [each for each in (engine, *within) if each is not None]

        def end_if_asked(_: Workflow) -> None:
            if isinstance(engine, Trainer):
                # Processes that train together stop after the same iteration: one alone would wait for the others.
                self.signal = max(processes.gather([self.signal or 0])) or None
            if self.signal is not None:
                for each in engines:
                    each.terminate()

        for each in engines:
            each.add_event_handler(Events.ITERATION_COMPLETED, end_if_asked)
            each.add_event_handler(Events.EPOCH_COMPLETED, end_if_asked)
        self._listen()
        _end_workers_at_exit(os.getpid())
        try:
            engine.run()
        finally:
            self._listen_no_more()
            self._unlock()
            if self.threads is not None:
                torch.set_num_threads(self.threads)
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            if processes.is_first():
                print(f"stopped by {name}; what is done is kept, the same command goes on: {command_line()}")
            sys.exit(128 + self.signal)

    def _listen(self) -> None:
        self.process, self.signal = os.getpid(), None
        # Python hands signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: object) -> None:
        # A process forked from this one inherits its handlers, but has no engine to stop.
        if os.getpid() == self.process:
            self.signal = number
            self._listen_no_more()
            # The signal may have come during a print, which cannot be entered twice.
            os.write(2, b"\nstopping after this iteration; again to stop at once\n")

    def _listen_no_more(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def _unlock(self) -> None:
        if self.lock is not None and os.getpid() == self.process:
            self.lock.release()


def start_worker(worker_id: int) -> None:
    """Start a worker of a data loader: set MONAI's random states, and leave signals to the run.

    Ctrl-C and schedulers signal the workers too. Workers end with their main process, which may still need them to
    finish its iteration.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    worker_init_fn(worker_id)


@cache
def _end_workers_at_exit(_process: int) -> None:
    """Once per process: end workers that an error left over before Python waits for them.

    Python would send them the SIGTERM that they ignore, and wait for ever.
    """
    Finalize(None, _end_workers, exitpriority=0)


def _end_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def command_line() -> str:
    """The command that this process was started with."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.parent] if spec and Path(sys.argv[0]).name == "__main__.py" else [sys.argv[0]]
    return shlex.join(["python", *program, *sys.argv[1:]])
