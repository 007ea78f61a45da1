"""A run from start to end: alone in its output folder, and stopped in order by Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from bundle.data import FolderLock

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Session:
    """What ``run`` of a configuration does around its engine.

    As a handler it ends an engine after the iteration in which a signal came, so that nothing finished is lost; a
    second signal acts at once, as it does without a session. Engines within the run, such as the validation of a
    training, take the same session. Without ``start`` it does nothing.

    Args:
        output_dir: folder of the run, which no other process may run into; None locks none.
    """

    def __init__(self, output_dir: str | os.PathLike[str] | None) -> None:
        self.lock = None if output_dir is None else FolderLock(output_dir)
        self.signal: int | None = None
        self.before: dict[int, Any] = {}
        self.engines: list[Engine] = []

    def start(self) -> None:
        """Lock the folder and listen to the signals.

        Raises:
            RuntimeError: when another process runs into the folder.
        """
        if self.lock is not None:
            self.lock.acquire()
        self.process, self.signal = os.getpid(), None
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        self.engines.append(engine)
        for event in (Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
            engine.add_event_handler(event, self._end_if_asked)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def end(self) -> None:
        """Unlock the folder; of a run that was stopped, print the command that goes on.

        Raises:
            SystemExit: with 128 + the signal's number (130 for Ctrl-C, 143 for SIGTERM) when the run was stopped.
        """
        self._close()
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            print(f"stopped by {name}; what is done is kept, the same command goes on: {command_line()}")
            sys.exit(128 + self.signal)

    def _note(self, number: int, frame: object) -> None:
        # Ctrl-C reaches the workers of a data loader too; they end with the process they work for.
        if os.getpid() == self.process:
            self.signal = number
            self._listen_no_more()
            # The signal may have come in the middle of a print, which cannot be entered twice.
            os.write(2, b"\nstopping after this iteration; again to stop at once\n")

    def _end_if_asked(self, engine: Engine) -> None:
        if self.signal is not None:
            for each in self.engines:
                each.terminate()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close()
        raise error

    def _close(self) -> None:
        self._listen_no_more()
        if self.lock is not None:
            self.lock.release()

    def _listen_no_more(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())


def command_line() -> str:
    """The command that this process was started with."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.parent] if spec and Path(sys.argv[0]).name == "__main__.py" else [sys.argv[0]]
    return shlex.join(["python", *program, *sys.argv[1:]])
