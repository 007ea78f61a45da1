"""The map networks of an experiment: one for every fold of the patients, and options of runs that use their maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Plan = Mapping[str, Any]
Entry = Mapping[str, Any]


def is_of_maps(training: Entry) -> bool:
    """Whether a training trains map networks, one for every fold of the patients."""
    return "folds" in training


def map_trainings(training: Entry) -> dict[str, str]:
    """Trainings of the map networks that a training uses: ``{side: name}``, or ``{"": name}`` for both sides."""
    named = training.get("maps") or {}
    return {"": named} if isinstance(named, str) else dict(named)


def fold_folders(plan: Plan, name: str, folder_of: Callable[[str], Path]) -> list[Path]:
    """Folders of the map networks of a training, one for each fold."""
    return [folder_of(name) / f"fold_{fold}" for fold in range(plan["trainings"][name]["folds"])]


def map_options(plan: Plan, training: Entry, folder_of: Callable[[str], Path], folds: bool = False) -> dict[str, Any]:
    """Options that name the map networks of a training, or of a method that uses its weights.

    Args:
        plan: plan of the experiment.
        training: an entry with ``maps``; without ``maps`` there are no options.
        folder_of: folder of a training by its name.
        folds: name the folds too, for a training on the patients that they divide.
    """
    weights, count = {}, None
    for side, name in map_trainings(training).items():
        folders = fold_folders(plan, name, folder_of)
        count = len(folders)
        weights[side] = [str(folder / plan["weights_file"]) for folder in folders]
    if not weights:
        return {}
    return {"map_weights": weights.get("", weights), **({"map_folds": count} if folds else {})}


def map_files(options: Mapping[str, Any]) -> list[str]:
    """Files of the map networks that options name."""
    named = options.get("map_weights") or []
    return list(named) if isinstance(named, list) else [file for files in named.values() for file in files]
