"""The checkpoint of a run that is to continue: the newest that can be read, and only with the settings of the run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bundle.system import DataWarning, brief, changes, described, processes

NEWEST, PREVIOUS, UNREADABLE = "checkpoint.pt", "checkpoint_previous.pt", "checkpoint_unreadable.pt"
MOST_CHANGES = 5
"""Largest number of changed settings that an error names."""


def check_run(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Refuse the folder of a run with other settings, before anything is written into it.

    Args:
        folder: folder of the run.
        settings: what the result depends on, by name; may hold objects.

    Raises:
        ValueError: as ``read_checkpoint``.
    """
    stored = processes.from_first(lambda: (_newest(Path(folder)) or {}).get("settings"))
    _check_settings(Path(folder), stored, described(**settings))


def read_checkpoint(folder: Path, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """The checkpoint to continue from; among several processes the first reads it. Every process has to call it.

    Args:
        folder: folder of the run.
        settings: what the result depends on, as ``described`` has it.

    Returns:
        The newest checkpoint that can be read; None if there is none.

    Raises:
        ValueError: when it was made with other settings, or neither it nor the previous one can be read.
    """
    checkpoint = processes.from_first(lambda: _newest(folder))
    _check_settings(folder, checkpoint and checkpoint["settings"], settings)
    return checkpoint


def _check_settings(folder: Path, stored: Mapping[str, str] | None, settings: Mapping[str, str]) -> None:
    changed = [] if stored is None else changes(stored, settings)
    if changed:
        more = f"; and {len(changed) - MOST_CHANGES} more" if len(changed) > MOST_CHANGES else ""
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed[:MOST_CHANGES])}{more}); "
            "give another --output_dir, or the same settings to continue that run"
        )


def _newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read."""
    newest, problem = folder / NEWEST, None
    unreadable: list[str] = []
    for path in (newest, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            # The objects that it is loaded into know their device, which differs between processes.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            if not {"settings", "iteration"} <= checkpoint.keys():
                raise ValueError("not a checkpoint of this bundle")
        except Exception as error:
            problem = problem or error
            unreadable.append(str(path))
            continue
        if problem is not None:
            # Move it away, so that the next checkpoint does not overwrite this one.
            newest.replace(folder / UNREADABLE)
            message = f"{newest} cannot be read ({brief(problem)}); {path} takes over"
            warnings.warn(message, DataWarning, stacklevel=2)
        return {**checkpoint, "settings": dict(checkpoint["settings"])}
    if problem is not None:
        files, them = " and ".join(unreadable), "them" if len(unreadable) > 1 else "it"
        raise ValueError(
            f"{files} cannot be read as a checkpoint ({brief(problem)}); move {them} away to start anew"
        ) from problem
    return None
