"""What kind of value a setting has: that of the configurations before, wherever it comes from."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.system.configurations import change, keys_of, load_configurations, read_configurations
from bundle.system.errors import DataWarning
from bundle.system.text import did_you_mean, is_language

BASES = ("train.yaml", "inference.yaml", "maps.yaml")
"""Configurations that overlays are made for; one may be for several."""
STAGES = ("initialize", "run", "finalize")
"""Keys that MONAI's runner takes without being told."""
POSITIVE = (
    *("window_mm", "map_pixdim", "heat_map_mm", "zoom", "size_divisor", "downsampling", "channels", "map_channels"),
    *("iterations", "iterations_per_epoch", "episodes_per_iteration", "pairs_per_episode", "epochs", "batch_size"),
    *("val_interval", "inner_lr", "meta_lr"),
)
"""Options of which 0 means nothing; no number of a configuration may be negative."""
HOLD_LISTS = ("centred_maps", "leading_maps", "held_maps", "control_points", "point_grid")
"""Options that are lists, although the configuration has null or an expression for them."""
EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")
"""Numbers that YAML takes for text, since they have no point."""
REFERENCE = re.compile(r"[@%](\w+)")


def load_checked(names: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Read configurations as ``load_configurations`` does, and check what they hold as options are checked.

    Raises:
        FileNotFoundError: as there.
        ValueError: as there; for a value of another kind than that in the files before; and for a key of a later file
            that nothing uses, unless it begins with ``_``.
    """
    content: dict[str, Any] = {}
    added: dict[str, Path] = {}
    for file, changes in read_configurations(names):
        for name, value in changes.items():
            default, key = part_of(name, content), keys_of(name)[0]
            if not is_language(value):  # the first file has nothing before it
                check_kind(name, value if default is None else default, value, value, prefix="", place=f"{file}: ")
            if content and key not in content:
                added[key] = file
        change(content, changes, file)
    text = json.dumps(content, default=str, ensure_ascii=False) if added else ""
    unused = {key: file for key, file in added.items() if not _is_used(key, content[key], text)}
    # An overlay may be for several configurations.
    others = set().union(*map(load_configurations, BASES)) if unused else set()
    for key, file in unused.items():
        if key not in others:
            near = did_you_mean([key], content.keys() - added.keys())
            raise ValueError(f"{file}: nothing uses the key {key}{near or '; take it out, or begin its name with _'}")
    return content


def _is_used(key: str, value: Any, text: str) -> bool:
    """Whether a key that an overlay adds to a configuration, here as text, is referred to, run, or hidden."""
    named = re.search(rf"[@%]{re.escape(key)}\b", text) is not None
    return key.startswith("_") or named or _is_run(key, value)


def _is_run(key: str, value: Any) -> bool:
    return key in STAGES or isinstance(value, list) and any(map(is_language, value))


def without_effect(content: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """Keys of a configuration to which nothing that it runs leads: most lose their use to an overlay.

    Args:
        content: content of the configuration.
        given: other values of keys, which may refer to keys.
    """
    left = {key: set(REFERENCE.findall(json.dumps(value, default=str))) for key, value in content.items()}
    waiting = {key for key, value in content.items() if _is_run(key, value)}
    if not waiting:  # it is part of another workflow
        return set()
    texts = (value for value in given.values() if isinstance(value, str) and is_language(value))
    waiting |= {key for text in texts for key in REFERENCE.findall(text)}
    while waiting:
        waiting = {key for used in waiting & left.keys() for key in left.pop(used)}
    return set(left)


def tell_unused(given: Mapping[str, Any], content: Mapping[str, Any], prefix: str = "") -> None:
    """Warn of settings that nothing in a configuration uses.

    Args:
        given: settings by name.
        content: content of the configuration.
        prefix: put before the names in the message.

    Warns:
        DataWarning: naming them.
    """
    unused = without_effect(content, given)
    if names := [prefix + name for name in given if keys_of(name)[0] in unused]:
        message = f"{', '.join(names)}: no effect, since nothing in these configurations uses it"
        warnings.warn(message, DataWarning, stacklevel=3)


def part_of(name: str, content: Any) -> Any:
    """The value of a key of a configuration, or of a part of one; None if it is not there."""
    for key in keys_of(name):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def check_settings(settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Refuse texts, numbers and lists of another kind than the configuration has, and a device that this machine lacks.

    Other objects are left to who uses them.

    Raises:
        ValueError: naming the setting, its value and what is expected.
    """
    for name, value in settings.items():
        if isinstance(value, str) and is_language(value):
            continue
        if isinstance(value, int | float | str | list | tuple | dict):
            check_kind(name, part_of(name, content), value, value, prefix="")
        if name == "device" and value is not None:
            from bundle.system.processes import check_device  # with torch

            check_device(value)


def check_kind(name: str, default: Any, value: Any, typed: Any, prefix: str = "--", place: str = "") -> None:
    """Raise a ValueError for the value of an option, which was ``typed`` so, of another kind than the default.

    Args:
        name: name of the option.
        default: value that it has otherwise.
        value: the value.
        typed: what messages show of it.
        prefix: put before the name in messages.
        place: what messages begin with, such as the file in which the value stands.
    """
    if expected := _expected(name, default, value, prefix):
        raise ValueError(f"{place}{prefix}{name} is {typed!r}; expected {expected}")


def _expected(name: str, default: Any, value: Any, prefix: str) -> str | None:
    """What a value should be if its kind differs from the default's; None if it does not."""
    if value is None and not isinstance(default, int | float):  # null switches off what is no number
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(default, int | float):
        kinds = int if isinstance(default, int) else (int, float)
        number = "a whole number" if kinds is int else "a number"
        if isinstance(value, kinds) and not isinstance(value, bool):
            if name == "spatial_dims":
                return None if value in (2, 3) else "2 or 3"
            small = value <= 0 if name in POSITIVE else value < 0
            return f"{'more than 0' if name in POSITIVE else '0 or more'}, such as {default}" if small else None
        text = isinstance(value, str) and EXPONENT.fullmatch(value)
        return f"{number}, such as {default}{'; YAML reads a number with e as text if it has no point' if text else ''}"
    if name in HOLD_LISTS and not isinstance(value, list | tuple):
        return 'a list, such as "[0]"' if name.endswith("maps") else "a list, with a number for each axis"
    if isinstance(default, list) and not isinstance(value, list | tuple):
        return f'a list, such as "{default}"'
    if isinstance(default, Mapping) and not isinstance(value, Mapping):
        return f"one of its parts, such as {prefix}{name}::{next(iter(default), 'key')}{' VALUE' if prefix else ''}"
    return None
