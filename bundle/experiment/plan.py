"""The plan of an experiment: lists of pairs, trainings, methods and evaluations, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bundle.evaluation.measures import MEASURES
from bundle.experiment.entries import KEYS, checked
from bundle.experiment.maps import is_of_maps, map_trainings
from bundle.experiment.options import check_options
from bundle.experiment.runs import (
    NOT_REGISTERED,
    Entry,
    Plan,
    Run,
    methods_of,
    reference_of,
    run_of,
    slug,
    training_files,
)
from bundle.system.configurations import keys_of, load_configurations, put, unknown_option
from bundle.system.kinds import check_kind, load_checked, part_of

EMPTY: Mapping[str, Any] = {
    **dict.fromkeys((*KEYS, "training_options", "inference_options"), {}),
    **dict.fromkeys(("configs", "notes", "measures"), ()),
}
"""Keys of a plan of which null, or nothing after the colon, means none."""
NULL = "$None"
ROOTS = ("dataset_dir", "target_dir")
# What a curve runs over -> the key of its methods that gets the value of each point.
VARIED = {"steps": "steps", "epochs": "epoch"}
# The default list of an entry, and the sections that its runs read, the required one first.
LISTS = {"trainings": ("training", ("training", "validation")), "evaluations": ("test", ("test",))}


def read_plan(config_files: Sequence[str], overrides: Entry) -> Plan:
    """Read the plan of an experiment.

    Args:
        config_files: ``configs/experiments/experiment.yaml``, and files that change it.
        overrides: keys of the plan, or parts of them such as ``pair_limits::test``, with other values.

    Raises:
        ValueError: for an unknown key, or a name of something that does not exist.
    """
    plan = load_checked(config_files)
    unknown = [f"--{name}" for name in overrides if keys_of(name)[0] not in plan]
    if unknown:
        raise ValueError(unknown_option(unknown, plan, ("dataset_dir", "output_dir")))
    # A plan is no configuration of MONAI, and null is the one expression that it takes.
    changes = {name: None if value == NULL else value for name, value in overrides.items()}
    for name, value in changes.items():
        check_kind(name, part_of(name, plan), value, overrides[name])
        put(plan, name, value)
    plan |= {name: empty for name, empty in EMPTY.items() if name in plan and plan[name] is None}
    absent = [kind for kind in KEYS if not isinstance(plan.get(kind), Mapping)]
    if absent:
        raise ValueError(
            f"{', '.join(map(str, config_files))}: no {absent[0]}; expected the plan of an experiment, such as "
            "configs/experiments/experiment.yaml, and files that change it"
        )
    plan |= {kind: checked(kind, plan[kind]) for kind in KEYS}
    _check_references(plan)
    _check_methods(plan)
    _check_choices(plan)
    _check_epochs(plan)
    _check_folders(plan)
    check_options(plan)
    return plan


def list_name(kind: str, entry: Entry) -> str:
    """Name of the list of pairs of one of the ``trainings`` or ``evaluations``."""
    return entry.get("list", LISTS[kind][0])


def needed_sections(plan: Plan) -> dict[str, dict[str, None]]:
    """Sections of every list that is used, in order: ``{list: {section: None}}``."""
    needed: dict[str, dict[str, None]] = {}
    for kind, (_, sections) in LISTS.items():
        for entry in plan[kind].values():
            needed.setdefault(list_name(kind, entry), {}).update(dict.fromkeys(sections))
    return needed


def curve_points(evaluation: Entry) -> Iterator[tuple[str, str, int, dict[str, int]]]:
    """Points of an evaluation's curves: name of the start, its method, the point, the method's key with that value."""
    curves = evaluation.get("curves") or {}
    for start, method in curves.get("starts", {}).items():
        for point in curves["points"]:
            yield start, method, point, {VARIED[curves["over"]]: point}


def registrations(plan: Plan, title: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Methods of an evaluation, and those of the points of its curves with the value that a point varies."""
    yield from ((name, {}) for name in methods_of(plan, plan["evaluations"][title]))
    yield from ((method, value) for _, method, _, value in curve_points(plan["evaluations"][title]))


def kept_epochs(plan: Plan, training: str) -> list[int]:
    """Epochs of a training whose weights some method or curve uses, in order; 0 is the start of the training."""
    return sorted({epoch for _, name, epoch in _asked_epochs(plan) if name == training})


def _asked_epochs(plan: Plan) -> Iterator[tuple[str, str | None, int]]:
    """Which method or curve asks for the weights of which training at which epoch."""
    for name, method in plan["methods"].items():
        if method.get("epoch") is not None:
            yield f"methods: {name!r}", method.get("training"), method["epoch"]
    for title, evaluation in plan["evaluations"].items():
        for start, method, point, value in curve_points(evaluation):
            if "epoch" in value:
                where = f"evaluations: the curve {start!r} of {title!r}"
                yield where, plan["methods"][method].get("training"), point


def _check_references(plan: Plan) -> None:
    """Check that named lists and trainings exist, and that a list's folders start at a folder of the command line."""
    named = [("methods", "training", "trainings"), ("trainings", "start", "trainings")]
    for kind, key, there in [*named, *((kind, "list", "lists") for kind in LISTS)]:
        for name, entry in plan[kind].items():
            value = list_name(kind, entry) if key == "list" else entry.get(key)
            if value not in (None, *plan[there]):
                found = ", ".join(plan[there])
                raise ValueError(f"{kind}: {name!r} names the {key} {value!r}, which is not there; expected {found}")
    order = list(plan["trainings"])
    for name, entry in plan["trainings"].items():
        start = entry.get("start")
        if start and order.index(start) >= order.index(name):
            raise ValueError(f"trainings: {name!r} starts from {start!r}, which comes later; list it before {name!r}")
        if "all_patients" in entry and not is_of_maps(entry):
            raise ValueError(f"trainings: {name!r} has all_patients but no folds; only map networks go on with all")
        for maps in map_trainings(entry).values():
            of_maps = [known for known in order[: order.index(name)] if is_of_maps(plan["trainings"][known])]
            if maps not in of_maps:
                raise ValueError(
                    f"trainings: {name!r} takes the maps of {maps!r}; expected one with folds that is listed before "
                    f"it: {', '.join(of_maps) or 'there is none'}"
                )
    for name, entry in plan["lists"].items():
        for folder in entry.get("folders", []):
            if str(folder).split("/")[0] not in ROOTS:
                raise ValueError(
                    f"lists: {name!r} has the folder {folder!r}; expected {' or '.join(ROOTS)}, or a folder in it such "
                    f"as {ROOTS[-1]}/test"
                )


def _check_methods(plan: Plan) -> None:
    """Check that the methods that evaluations name exist, and that each has those that the others are compared with."""
    if NOT_REGISTERED in plan["methods"]:
        raise ValueError(f"methods: {NOT_REGISTERED!r} is the row of the pairs before registration; name it otherwise")
    named: dict[str, None] = {}
    for entry in plan["evaluations"].values():
        curves = entry.get("curves") or {}
        named |= dict.fromkeys([*methods_of(plan, entry), *curves.get("starts", {}).values()])
        named |= dict.fromkeys(_compared_with(plan, entry).values())
    missing = sorted(set(named) - set(plan["methods"]))
    if missing:
        raise ValueError(f"no method {', '.join(map(repr, missing))}; expected {', '.join(plan['methods'])}")
    for title, entry in plan["evaluations"].items():
        methods = methods_of(plan, entry)
        for what, name in _compared_with(plan, entry).items():
            if name not in methods:
                raise ValueError(
                    f"evaluations: {title!r} is compared with {what} {name!r}, which is not among its methods; "
                    f"expected one of {', '.join(methods)}"
                )


def _compared_with(plan: Plan, entry: Entry) -> dict[str, str]:
    """The methods that the others of an evaluation are compared with, in its tests and in the figure of its curves."""
    level = (entry.get("curves") or {}).get("level")
    return {"its reference": reference_of(plan, entry)} | ({"the level of its curves": level} if level else {})


def _check_choices(plan: Plan) -> None:
    """Check that measures are known, and that curves run over something that a method has."""
    for title, entry in plan["evaluations"].items():
        unknown = [key for key in entry.get("measures", plan["measures"]) if key not in MEASURES]
        if unknown:
            raise ValueError(
                f"evaluations: {title!r} has the measure {unknown[0]!r}; expected some of {', '.join(MEASURES)}"
            )
        curves = entry.get("curves")
        if curves and (curves.get("over") not in VARIED or not curves.get("points") or not curves.get("starts")):
            raise ValueError(
                f"evaluations: the curves of {title!r} are {dict(curves)}; expected over ({' or '.join(VARIED)}), "
                "points (a list of numbers) and starts (name: method)"
            )


def _check_epochs(plan: Plan) -> None:
    """Check that trainings have the epochs asked for; a training that starts from nothing has no epoch 0."""
    lasts: dict[str | None, int | None] = {}
    for who, name, epoch in _asked_epochs(plan):
        training = plan["trainings"].get(name)
        if training is None:
            raise ValueError(f"{who} asks for epoch {epoch}, but its method has no training; give it one")
        if epoch == 0 and not training.get("start"):
            raise ValueError(f"{who} asks for epoch 0 of {name!r}, which has no start; begin with epoch 1")
        if name not in lasts:
            lasts[name] = _epochs(plan, training)
        last = lasts[name]
        if last is not None and epoch > last:
            raise ValueError(f"{who} asks for epoch {epoch} of {name!r}, which has {last}; expected 0 to {last}")


def _epochs(plan: Plan, training: Entry) -> int | None:
    """How many epochs a training has by its configuration; None if that depends on its images."""
    from monai.bundle import ConfigParser

    content = load_configurations(training_files(plan, training))
    content |= {**plan["training_options"], **training.get("options", {})}
    counts = (content["iterations"], content["iterations_per_epoch"])
    return ConfigParser(content).get_parsed_content("epochs") if all(isinstance(n, int) for n in counts) else None


def _check_folders(plan: Plan) -> None:
    """Check that what differs does not share a folder: its name leaves out signs, and some of what a run is made of."""
    for kind in ("lists", "trainings", "evaluations"):
        names: dict[str, str] = {}
        for name in plan[kind]:
            first = names.setdefault(slug(name), name)
            if first != name:
                raise ValueError(
                    f"{kind}: {first!r} and {name!r} would be one folder, {slug(name)}; rename one of them"
                )
    for title in plan["evaluations"]:
        runs: dict[str, tuple[str, Run]] = {}
        for method, value in registrations(plan, title):
            run = run_of(plan, method, value)
            first, known = runs.setdefault(run.name, (method, run))
            if known != run:
                raise ValueError(
                    f"methods: {first!r} and {method!r} differ, but their results in {title!r} would be one folder, "
                    f"{run.name}; give one of them an overlay (configs) of its own"
                )
