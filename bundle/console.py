"""What the command line says when something is wrong: one clear line, and the traceback for those who ask."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

from monai.bundle import ConfigParser

USER_ERRORS = (ValueError, OSError, RuntimeError, FloatingPointError)
RUNNER_OPTIONS = {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file"}
HARMLESS = (
    ".*Using PyTorch native grid_sample.*",  # MONAI without its compiled extension
    ".*non-tuple sequence for multidimensional indexing.*",  # MONAI's deformation losses
)
"""Warnings of the libraries that a user can do nothing about."""


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exception hook: print what was wrong in one line unless it looks like a fault of the program.

    Args:
        kind: class of the exception.
        error: the exception; the first of its chain is reported, since MONAI wraps what a component raises.
        trace: its traceback, printed for other classes and where the variable ``BUNDLE_TRACEBACK`` is set.
    """
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, KeyboardInterrupt):
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
    elif isinstance(root, USER_ERRORS) and not os.environ.get("BUNDLE_TRACEBACK"):
        print(f"error: {' '.join(str(root).split()) or type(root).__name__}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


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
    unknown = [name for name in options if name.replace("#", "::").split("::")[0].lstrip("+") not in known]
    if unknown:
        settings = sorted(key for key, value in files.items() if not isinstance(value, dict))
        raise ValueError(f"unknown option --{', --'.join(unknown)}; known options are {', '.join(settings)}")


def _config_files(value: str) -> list[str]:
    names = value.strip("[]").split(",")
    return [name.strip().strip("'\"") for name in names]


def setup() -> None:
    """Prepare a command: one-line errors, no typos among its options, no warnings a user cannot act on.

    Raises:
        ValueError: for an unknown option of ``python -m monai.bundle run``.
    """
    sys.excepthook = report
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)
    if Path(sys.argv[0]).parent.name == "bundle" and Path(sys.argv[0]).parent.parent.name == "monai":
        check_overrides(sys.argv[2:])
