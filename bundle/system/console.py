"""What the command line says when something is wrong: one clear line, and the traceback for those who ask."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from bundle.system import processes
from bundle.system.errors import WRAPPING, DataWarning, one_line, root_cause

USER_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError, ImportError)
RUNNER_OPTIONS = {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file"}
HARMLESS = (
    ".*always_return_as_numpy.*",  # MONAI's Hausdorff distance calls its own deprecated option
    ".*Using PyTorch native grid_sample.*",  # MONAI without its compiled extension
    ".*decompression bomb.*",  # pictures are refused at twice the size that Pillow warns of
    ".* for VR .*",  # pydicom, about a value of a header, with the value: it may name a patient
    ".*non-tuple sequence for multidimensional indexing.*",  # MONAI's deformation losses
)
"""Warnings of the libraries that a user can do nothing about."""


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exception hook: print what was wrong in one line unless it looks like a fault of the program.

    Args:
        kind: class of the exception.
        error: the exception; what MONAI wraps around the one that says what was wrong is left out.
        trace: its traceback, printed for other classes and where the variable ``BUNDLE_TRACEBACK`` is set.

    Of several processes only the first to fail says so.
    """
    if not processes.is_first_to_fail():
        return
    root = root_cause(error)
    place = _place_in_configuration(error)
    if isinstance(root, KeyboardInterrupt):
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
    elif os.environ.get("BUNDLE_TRACEBACK") or not (isinstance(root, USER_ERRORS) or place):
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {place}{one_line(root)}", file=sys.stderr)


def _place_in_configuration(error: BaseException) -> str:
    """The component or expression of the configuration that raised, unless the error says enough by itself.

    A ``TypeError`` of a component comes from the options it was given; one out of a run is a fault of the program.
    """
    wrapping = ""
    while error.__cause__ is not None and WRAPPING.match(str(error)):
        wrapping, error = str(error), error.__cause__
    if isinstance(error, USER_ERRORS) or not wrapping.startswith("Failed to ") or ".run(" in wrapping:
        return ""
    where = re.sub(r"__local_refs\['(.+?)'\]", r"@\1", " ".join(wrapping.split("\n set '_mode_")[0].split()))
    return f"{where}: {type(error).__name__}: "


def overrides(arguments: list[str]) -> dict[str, list[str]]:
    """Options of a MONAI bundle command line: name -> values, from ``--name value`` and ``--name=value``."""
    options: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            options[name] = [value] if value else []
        elif name:
            options[name].append(argument)
    return options


def check_overrides(arguments: list[str]) -> None:
    """Refuse an option of ``python -m monai.bundle run`` that no configuration file knows; MONAI ignores it silently.

    Args:
        arguments: the command line after the program's name.

    Raises:
        ValueError: naming the unknown options and the known ones.
    """
    options = overrides(arguments)
    if not options.get("config_file"):
        return
    files = ConfigParser.load_config_files(_config_files(options["config_file"][0]))
    known = set(files) | RUNNER_OPTIONS
    if "tracking" in options:
        known |= set(DEFAULT_MLFLOW_SETTINGS["configs"])
    keys = {name: name.replace("#", "::").split("::")[0].lstrip("+") for name in options}
    unknown = [name for name, key in keys.items() if key not in known]
    if unknown:
        raise ValueError(unknown_option([f"--{name}" for name in unknown], files))
    for name, values in options.items():
        if values in (["null"], ["None"]):
            raise ValueError(f"--{name} {values[0]}: on the command line, null is written '$None'")
        _check_number(name, files.get(name), values)


def unknown_option(names: Iterable[str], content: Mapping[str, Any]) -> str:
    """Message about options that a configuration does not have, with those that it has."""
    known = sorted(key for key, value in content.items() if not isinstance(value, dict))
    return f"unknown option {', '.join(names)}; known options are {', '.join(known)}"


def _check_number(name: str, default: Any, values: list[str]) -> None:
    """Refuse what is no number where the configuration has one; expressions and references are left to MONAI."""
    if isinstance(default, bool) or not isinstance(default, int | float) or not values or values[0][:1] in "$@%[(":
        return
    value = DefaultParseValue(values[0])
    kinds = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        expected = "a whole number" if kinds is int else "a number"
        raise ValueError(f"--{name} is {values[0]!r}; expected {expected}, such as {default}")


def _config_files(value: str) -> list[str]:
    names = value.strip("[]").split(",")
    return [name.strip().strip("'\"") for name in names]


def format_warning(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    """A warning about the data in one line; others as Python shows them."""
    if issubclass(category, DataWarning):
        return f"warning: {message}\n"
    return python_format(message, category, *place, **line)


python_format = warnings.formatwarning


def setup() -> None:
    """Prepare a command: one-line errors, no typos among its options, no warnings a user cannot act on.

    Raises:
        ValueError: for an unknown option of ``python -m monai.bundle run``.
    """
    sys.excepthook = report
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = format_warning
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    for library in ("nibabel.global", "pydicom"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if Path(sys.argv[0]).parent.name == "bundle" and Path(sys.argv[0]).parent.parent.name == "monai":
        check_overrides(sys.argv[2:])
