"""Options that a plan gives to its runs, checked before the first of them begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from bundle.experiment.maps import is_of_maps
from bundle.experiment.runs import Plan, methods_of, registration_files, registration_options, run_of, training_files
from bundle.system.kinds import check_settings, load_checked
from bundle.system.overrides import check_known


def check_options(plan: Plan) -> None:
    """Refuse options of runs that their configurations do not have, and values of another kind.

    MONAI would leave out the first in silence, and stumble over the second after the work of the runs before.

    Args:
        plan: plan of an experiment, whose entries have names that are there.

    Raises:
        FileNotFoundError: for a missing configuration.
        ValueError: naming the entry, and what is wrong.
    """
    read = cache(lambda *files: load_checked(files))
    for where, files, options in _runs(plan):
        try:
            content = read(*files)
            check_known(options, content)
            check_settings(options, content)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from error


def _runs(plan: Plan) -> Iterator[tuple[str, Sequence[str], Mapping[str, Any]]]:
    """Trainings and registrations of a plan: what messages call each, its configurations, its options."""
    for name, training in plan["trainings"].items():
        own = training.get("options", {})
        if is_of_maps(training):
            files, options = ["maps.yaml", *training.get("configs", [])], own | training.get("all_patients", {})
        else:
            files, options = training_files(plan, training), plan["training_options"] | own
        yield f"trainings: {name!r}", files, options
    for title, entry in plan["evaluations"].items():
        drawn = (entry.get("curves") or {}).get("starts", {}).values()
        for name in dict.fromkeys([*methods_of(plan, entry), *drawn]):
            made = run_of(plan, name)
            yield f"{name!r} in {title!r}", registration_files(plan, made), registration_options(plan, title, made)
