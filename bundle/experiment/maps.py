"""The map networks of an experiment: one for every fold of the patients, and options of runs that use their maps.

A registration network must be trained on maps of images that the map network never saw, as new images are. So there is
a network without each fold. For new images all patients may teach: every network goes on with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundle.experiment.runs import Entry, Plan


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


def final_folders(plan: Plan, name: str, folder_of: Callable[[str], Path]) -> list[Path]:
    """Folders of the networks for new images: those of the folds, or what went on from them with all patients."""
    if "all_patients" not in plan["trainings"][name]:
        return fold_folders(plan, name, folder_of)
    return [folder.with_name(f"all_{fold}") for fold, folder in enumerate(fold_folders(plan, name, folder_of))]


def map_options(plan: Plan, training: Entry, folder_of: Callable[[str], Path], folds: bool = False) -> dict[str, Any]:
    """Options that name the map networks of a training, or of a method that uses its weights.

    Args:
        plan: plan of the experiment.
        training: an entry with ``maps``; without ``maps`` there are no options.
        folder_of: folder of a training by its name.
        folds: for a training on the patients that the folds divide: the networks of the folds, and how many there are.
            Otherwise the networks for new images.
    """
    weights, count = {}, None
    for side, name in map_trainings(training).items():
        folders = (fold_folders if folds else final_folders)(plan, name, folder_of)
        count = len(folders)
        weights[side] = [str(folder / plan["weights_file"]) for folder in folders]
    if not weights:
        return {}
    return {"map_weights": weights.get("", weights), **({"map_folds": count} if folds else {})}


def map_files(options: Mapping[str, Any]) -> list[str]:
    """Files of the map networks that options name."""
    named = options.get("map_weights") or []
    return list(named) if isinstance(named, list) else [file for files in named.values() for file in files]
