"""What the entries of a plan may say: their keys, and the kind of each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bundle.experiment.runs import slug

Kind = tuple[str, Callable[[Any], bool]]
"""What is expected, in words, and whether a value is that."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


TEXT: Kind = ("a text, in quotes where YAML reads a number or a word of its own", _is_text)
TEXTS: Kind = ("a list of texts, in brackets", _list_of(_is_text))
NUMBERS: Kind = ("a list of numbers, in brackets", _list_of(_is_number))
WHOLE: Kind = ("a whole number, 0 or more", _is_whole)
WHOLES: Kind = ("a list of whole numbers, 0 or more, in brackets", _list_of(_is_whole))
MAPPING: Kind = ("keys, which are texts, with values", _is_mapping)
MAPS: Kind = ("the name of a training, or one for each side", lambda value: _is_text(value) or _is_mapping(value))

KEYS: Mapping[str, Mapping[str, Kind]] = {
    "lists": {
        "folders": TEXTS,
        "datalist": TEXT,
        "pairing": TEXT,
        "mixture": MAPPING,
        "split": NUMBERS,
        "pair_limits": MAPPING,
    },
    "trainings": {
        "list": TEXT,
        "network": TEXTS,
        "configs": TEXTS,
        "options": MAPPING,
        "start": TEXT,
        "maps": MAPS,
        "folds": WHOLE,
        "all_patients": MAPPING,
        "side": TEXT,
    },
    "methods": {
        "training": TEXT,
        "epoch": WHOLE,
        "network": TEXTS,
        "configs": TEXTS,
        "steps": WHOLE,
        "options": MAPPING,
    },
    "evaluations": {
        "list": TEXT,
        "methods": TEXTS,
        "reference": TEXT,
        "measures": TEXTS,
        "curves": MAPPING,
        "options": MAPPING,
    },
}
"""Kinds of entries -> their keys."""
CURVES: Mapping[str, Kind] = {"over": TEXT, "points": WHOLES, "starts": MAPPING, "level": TEXT}
MEANT = ("datalist",)
"""Keys of which null is a value: a list without the datalist of all."""
FOLDERS = ("lists", "trainings", "evaluations")
"""Kinds of entries that files are named after."""


def checked(kind: str, entries: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Entries of a plan without the keys that are null, as those that are not there; an entry may be null too.

    Args:
        kind: one of ``KEYS``.
        entries: by name.

    Raises:
        ValueError: for a name that is no text or cannot name a folder, an unknown key, and a value of another kind.
    """
    for name in entries:
        if not _is_text(name):
            raise ValueError(f"{kind}: the name {name!r} is no text; put it in quotes")
        if kind in FOLDERS and not slug(name):
            raise ValueError(f"{kind}: {name!r} names a folder; give it a letter or a digit")
    found = {name: _checked(f"{kind}: {name!r}", entry, KEYS[kind]) for name, entry in entries.items()}
    for title, entry in found.items():
        if "curves" in entry:
            entry["curves"] = _checked(f"evaluations: the curves of {title!r}", entry["curves"], CURVES)
    return found


def _checked(where: str, entry: Any, known: Mapping[str, Kind]) -> dict[str, Any]:
    if not isinstance(entry, Mapping | None):
        raise ValueError(f"{where} is {entry!r}; expected some of {', '.join(sorted(known))}, with values")
    entry = entry or {}
    if wrong := sorted(map(str, set(entry) - set(known))):
        raise ValueError(f"{where} has {', '.join(wrong)}; expected some of {', '.join(sorted(known))}")
    given = {key: value for key, value in entry.items() if value is not None or key in MEANT}
    for key, value in given.items():
        expected, fits = known[key]
        if value is not None and not fits(value):
            raise ValueError(f"{where}: {key} is {value!r}; expected {expected}")
    return given
