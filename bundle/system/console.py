"""What the command line says when something is wrong: one clear line, and the traceback on request."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from bundle.system.errors import WRAPPING, DataWarning, one_line, root_cause

USER_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError, ImportError)
HARMLESS = (
    "parsing config_file .*",  # MONAI, whenever it reads a configuration: which is code (docs/README.md)
    ".*always_return_as_numpy.*",  # MONAI's Hausdorff distance calls its own deprecated option
    ".*Using PyTorch native grid_sample.*",  # MONAI without its compiled extension
    ".*decompression bomb.*",  # pictures are refused at twice the size at which Pillow warns
    ".* for VR .*",  # pydicom, about a value of a header, with the value: it may name a patient
    ".*non-tuple sequence for multidimensional indexing.*",  # MONAI's deformation losses
)
"""Warnings of the libraries that a user cannot act on."""


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exception hook: print what was wrong in one line, unless it looks like a bug of the program.

    Args:
        kind: class of the exception.
        error: the exception; the exceptions that MONAI wraps around it are left out.
        trace: its traceback, printed for other classes, and if the variable ``BUNDLE_TRACEBACK`` is set.

    Among several processes, only the first to fail prints.
    """
    if "RANK" in os.environ and not _is_first_to_fail():
        return
    root = root_cause(error)
    place = _place_in_configuration(error)
    if isinstance(root, KeyboardInterrupt):
        goes_on = "the same command continues a training, a registration or an experiment"
        print(f"interrupted; what is complete is kept, and {goes_on}", file=sys.stderr)
    elif os.environ.get("BUNDLE_TRACEBACK") or not (isinstance(root, USER_ERRORS) or place):
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {place}{one_line(root)}", file=sys.stderr)


def _is_first_to_fail() -> bool:
    from bundle.system import processes  # with torch, which takes a second that a single process need not wait

    return processes.is_first_to_fail()


def _place_in_configuration(error: BaseException) -> str:
    """The component or expression of the configuration that raised, unless the error says enough by itself.

    A ``TypeError`` of a component comes from its options; one raised during a run is a bug of the program.
    """
    wrapping = ""
    while error.__cause__ is not None and WRAPPING.match(str(error)):
        wrapping, error = str(error), error.__cause__
    if isinstance(error, USER_ERRORS) or not wrapping.startswith("Failed to ") or ".run(" in wrapping:
        return ""
    where = re.sub(r"__local_refs\['(.+?)'\]", r"@\1", " ".join(wrapping.split("\n set '_mode_")[0].split()))
    return f"{where}: {type(error).__name__}: "


def format_warning(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    """Show a warning about the data in one line, and others as Python does."""
    if issubclass(category, DataWarning):
        return f"warning: {message}\n"
    return python_format(message, category, *place, **line)


python_format = warnings.formatwarning


def setup(resolved: dict[str, Any] | None = None) -> None:
    """Prepare a command: one-line errors, a check of its options, no warnings that a user cannot act on.

    Args:
        resolved: what the expressions of a configuration refer to (``__local_refs``). ``python -m monai.bundle run``
            has read a folder ``2025`` as a number by now: the paths among its options are put back as they were typed.

    Raises:
        ValueError: for an unknown or wrong option of ``python -m monai.bundle run``.
    """
    sys.excepthook = report
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _for_readers_that_leave(stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = format_warning
    hide_what_is_harmless()
    for library in ("nibabel.global", "pydicom"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if Path(sys.argv[0]).parent.name == "bundle" and Path(sys.argv[0]).parent.parent.name == "monai":
        from bundle.system.overrides import check_overrides, names_as_text, overrides, refuse_words

        options = overrides(sys.argv[2:])
        check_overrides(options)
        refuse_words(options)
        if resolved is not None:
            resolved |= names_as_text(options)


def hide_what_is_harmless() -> None:
    """Hide warnings, in all threads: to restore their filters in one would undo those of another."""
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)


class Output(io.FileIO):
    """A stream whose reader may leave, as ``head`` does. The program then ends quietly, as shells expect it to."""

    def write(self, content: Any) -> int:
        """Write.

        Raises:
            SystemExit: when nobody reads; no handler of errors takes it for one of the work.
        """
        try:
            return super().write(content)
        except BrokenPipeError:
            # What Python still holds back goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            sys.exit(128 + signal.SIGPIPE)


def _for_readers_that_leave(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream as an ``Output``, which takes all file names: they need not be UTF-8."""
    stream.flush()
    output = io.BufferedWriter(Output(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(
        output,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class AboveBar(logging.Handler):
    """Print messages so that a progress bar stays whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        from tqdm import tqdm

        tqdm.write(record.getMessage())
        sys.stdout.flush()  # a pipe would hold it back until the end


NO_BARS = "TQDM_DISABLE"
"""Variable by which tqdm draws no bars; tqdm itself reads it only when it is imported."""

# Loggers take a handler and a filter once, however many workflows a process runs.
OF_PAIRS, OF_VALIDATIONS = AboveBar(), AboveBar()
OF_PAIRS.addFilter(lambda record: record.getMessage().startswith(("pair ", "resumed ")))


def _is_of_an_epoch(record: logging.LogRecord) -> bool:
    return record.getMessage().startswith("Epoch[")


def quiet_unless(verbose: bool, quiet: bool = False) -> dict[str, bool]:
    """Silence the libraries, but for one line for each registered pair and each validation, unless that is not wanted.

    Args:
        verbose: show what the libraries log, as ``configs/logging.conf`` has it.
        quiet: print nothing at all but warnings and errors.

    Returns:
        Options of MONAI's workflows that go with it.

    Raises:
        ValueError: for both at once.
    """
    if verbose and quiet:
        raise ValueError("--verbose and --quiet exclude each other; give one of them")
    if quiet:
        os.environ[NO_BARS] = "1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if verbose:
        return {}
    import monai.bundle  # noqa: F401  its loggers take their levels when they are created

    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.ERROR, force=True)
    for name in logging.root.manager.loggerDict:
        if name.startswith("monai"):
            logging.getLogger(name).setLevel(logging.ERROR)
    engines = logging.getLogger("ignite.engine.engine")
    engines.setLevel(logging.INFO)
    engines.addHandler(OF_PAIRS)
    engines.propagate = False
    show_validations()
    return {"logging_file": False}


def show_validations() -> None:
    """Show the metrics of a validation in one line, before MONAI gives their logger a handler that shows more."""
    validation = logging.getLogger("monai.handlers.StatsHandler")
    validation.addFilter(_is_of_an_epoch)
    validation.addHandler(OF_VALIDATIONS)
