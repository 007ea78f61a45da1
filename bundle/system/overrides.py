"""Options of ``python -m monai.bundle run``: checked before anything is done, with file names left as text.

MONAI's runner reads as Python what looks like Python: ``2025`` and ``1e3`` as numbers, ``a#1`` as ``a``.
Libraries are imported where they are needed, so that a wrong option is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bundle.system.commands import TWICE, option_of
from bundle.system.configurations import keys_of, load_configurations, unknown_option
from bundle.system.limits import at_home, exists
from bundle.system.text import several

RUNNER_OPTIONS = {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file"}
WORKFLOW_OPTIONS = {"workflow_name", "workflow_type", "properties_path"}
PATHS = re.compile(r"\w*(_dir|weights|datalist|_root|_file)")
"""Names of the options that are files and folders."""
NEVER_NULL = ("dataset_dir", "output_dir")
LISTED = ("map_weights", "config_file", "meta_file")
"""Options that may hold several paths, in brackets."""
NULL = ("null", "None")
POSITIVE = (
    *("window_mm", "map_pixdim", "heat_map_mm", "zoom", "size_divisor", "downsampling", "channels", "map_channels"),
    *("iterations", "iterations_per_epoch", "episodes_per_iteration", "pairs_per_episode", "epochs", "batch_size"),
    *("val_interval", "inner_lr", "meta_lr"),
)
"""Options of which 0 means nothing; no number of a configuration may be negative."""
HOLD_LISTS = ("centred_maps", "leading_maps", "held_maps", "control_points", "point_grid")
"""Options that are lists, although the configuration has null or an expression for them."""
Options = Mapping[str, Sequence[str]]


def overrides(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Options of a MONAI bundle command line: name -> values, from ``--name value`` and ``--name=value``.

    Raises:
        ValueError: for an option that is given twice, of which MONAI would take the last.
    """
    options: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, value = option_of(argument), argument.partition("=")[2]
            if name in options:
                raise ValueError(TWICE.format(name))
            options[name] = [value] if value else []
        elif name:
            options[name].append(argument)
    return options


def listed(options: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The same for options with one value each, or none."""
    return {name: [] if value is None else [value] for name, value in options.items()}


def settings(
    files: Sequence[str], names: Mapping[str, str], options: Mapping[str, str | None], own: Collection[str]
) -> dict[str, Any]:
    """Values of a command's options for MONAI's workflow, checked.

    Args:
        files: configurations.
        names: files and folders, which are no expressions; options of the same names go before.
        options: as they were typed.
        own: options of the command, for messages.

    Raises:
        FileNotFoundError: as in :func:`check_overrides`.
        ValueError: the same, and for an option that names other configurations.
    """
    if "config_file" in options:
        raise ValueError(f"--config_file is for python -m bundle run; here it is {files[0]}, which --config changes")
    kept = {option: literal(name) for option, name in names.items() if option not in options}
    words = listed(options)
    check_overrides({"config_file": list(files), **{name: [value] for name, value in kept.items()}, **words}, own)
    return {**kept, **parsed(words)}


def check_overrides(options: Options, own: Collection[str] = ()) -> None:
    """Refuse options that MONAI would ignore, or stumble over later.

    Args:
        options: as :func:`overrides` gives them.
        own: options of the command that was called, for messages.

    Raises:
        FileNotFoundError: for a missing configuration.
        ValueError: naming unknown options and the known ones, or the wrong value and what is expected.
    """
    if not options.get("config_file"):
        return
    content = load_configurations(several(options["config_file"]))
    check_known(options, content, "--", own)
    for name, values in options.items():
        _check(name, _default(name, content), values)


def check_known(
    options: Collection[str], content: Mapping[str, Any], prefix: str = "", own: Collection[str] = ()
) -> None:
    """Refuse options that neither a configuration nor MONAI's runner has.

    Args:
        options: their names.
        content: content of the configuration.
        prefix: put before the names in the message.
        own: further options to name in it, before those of the configuration.

    Raises:
        ValueError: naming them and the known ones.
    """
    known = set(content) | RUNNER_OPTIONS | WORKFLOW_OPTIONS
    if "tracking" in options:
        from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

        known |= set(DEFAULT_MLFLOW_SETTINGS["configs"])
    unknown = [prefix + name for name in options if keys_of(name)[0] not in known]
    if unknown:
        raise ValueError(unknown_option(unknown, content, own))


def _default(name: str, content: Any) -> Any:
    for key in keys_of(name):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _is_language(value: str) -> bool:
    """Whether a value is an expression, a reference or a macro of MONAI's configuration language."""
    return value[:1] in ("$", "@", "%")


def is_path(name: str) -> bool:
    """Whether the values of an option are names of files or folders."""
    return PATHS.fullmatch(name) is not None


def literal(name: str) -> str:
    """A name in a form that MONAI's configurations keep: they turn ``#`` into ``::``, and ``$`` begins an expression.

    Args:
        name: name of a file or folder, or made of one.

    Returns:
        The name or, where it would not stay as it is, an expression that gives it.
    """
    if not _is_language(name) and "#" not in name:
        return name
    return "$'" + "".join(letter if letter.isalnum() else f"\\U{ord(letter):08x}" for letter in name) + "'"


def literal_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration whose files and folders keep their names; expressions are left to MONAI."""
    return {
        name: literal(value) if is_path(name) and isinstance(value, str) and not _is_language(value) else value
        for name, value in settings.items()
    }


def _check(name: str, default: Any, values: Sequence[str]) -> None:
    """Refuse a value of a different kind from the configuration's; expressions are left to MONAI."""
    if not values:
        if not isinstance(default, bool):
            raise ValueError(f"--{name} has no value; write --{name} VALUE")
        return
    value = values[0]
    if _is_language(value):
        return
    if value in NULL and not (is_path(name) and (name in NEVER_NULL or exists(value))):
        file = f"; a file of that name is ./{value}" if is_path(name) else ""
        raise ValueError(f"--{name} {value}: on the command line, null is written '$None'{file}")
    check_kind(name, default, _as_python(value), value)
    if name == "device":
        from bundle.system.processes import check_device

        check_device(value)


def check_settings(settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Refuse texts and numbers that differ in kind from the configuration's; objects are left to who uses them.

    Raises:
        ValueError: naming the setting, its value and what is expected.
    """
    for name, value in settings.items():
        if isinstance(value, int | float) or (isinstance(value, str) and not _is_language(value)):
            check_kind(name, _default(name, content), value, value, prefix="")


def check_kind(name: str, default: Any, value: Any, typed: Any, prefix: str = "--") -> None:
    """Raise a ValueError for the value of an option, which was ``typed`` so, of another kind than the default."""
    if expected := _expected(name, default, value):
        raise ValueError(f"{prefix}{name} is {typed!r}; expected {expected}")


def _expected(name: str, default: Any, value: Any) -> str | None:
    """What a value should be if its kind differs from the default's; None if it does not."""
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
        return f"{number}, such as {default}"
    if name in HOLD_LISTS and not isinstance(value, list | tuple):
        return 'a list, such as "[0]"' if name.endswith("maps") else "a list, with a number for each axis"
    if isinstance(default, list) and not isinstance(value, list | tuple):
        return f'a list, such as "{default}"'
    if isinstance(default, Mapping) and not isinstance(value, Mapping):
        return f"one of its parts, such as --{name}::{next(iter(default), 'key')} VALUE"
    return None


def names_as_text(options: Options) -> dict[str, str]:
    """The files and folders among the options, as they were typed but for ``~/`` (``at_home``).

    Args:
        options: as :func:`overrides` gives them, checked.
    """
    return {
        name: at_home(values[0])
        for name, values in options.items()
        if is_path(name)
        and values
        and not _is_language(values[0])
        and not (name in LISTED and values[0][0] in "[({" and not exists(values[0]))
    }


def parsed(options: Options) -> dict[str, Any]:
    """Values as MONAI's runner reads them, but names as they were typed.

    Args:
        options: as :func:`overrides` gives them, checked.

    Raises:
        ValueError: for an option of a file or folder without a value.
    """
    for name, values in options.items():
        if is_path(name) and not values:
            raise ValueError(f"--{name} has no value; write --{name} VALUE")
    others = {name: _as_python(values[0]) if values else True for name, values in options.items()}
    return others | names_as_text(options)


def _as_python(value: str) -> Any:
    """A value as MONAI's runner reads it."""
    from fire.parser import DefaultParseValue

    return DefaultParseValue(value)
