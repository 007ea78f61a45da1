"""Options of ``python -m monai.bundle run``: checked before anything is done, with file names left as text.

MONAI's runner reads as Python what looks like Python: ``2025`` and ``1e3`` as numbers, ``a#1`` as ``a``.
Libraries are imported where they are needed, so that a wrong option is refused at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bundle.system.commands import TWICE, option_of
from bundle.system.configurations import keys_of, unknown_option
from bundle.system.kinds import check_kind, load_checked, part_of, tell_unused
from bundle.system.limits import at_home, exists
from bundle.system.text import is_language, is_path, literal, several

RUNNER_OPTIONS = {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file"}
WORKFLOW_OPTIONS = {"workflow_name", "workflow_type", "properties_path"}
NEVER_NULL = ("dataset_dir", "output_dir")
LISTED = ("map_weights", "config_file", "meta_file")
"""Options that may hold several paths, in brackets."""
NULL = ("null", "None")
WORDS = {"null": None, "true": True, "false": False}
"""Words of YAML that are no words of Python."""
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


def settings(
    files: Sequence[str], names: Mapping[str, str], options: Mapping[str, str | None], own: Collection[str]
) -> dict[str, Any]:
    """Values of a command's options for MONAI's workflow, checked.

    Args:
        files: configurations.
        names: files and folders, which are no expressions; options of the same names go before, except of the images.
        options: as they were typed.
        own: options of the command, for messages.

    Raises:
        FileNotFoundError: as in :func:`check_overrides`.
        ValueError: the same, and for an option that names other configurations, or other images.
    """
    if "config_file" in options:
        raise ValueError(f"--config_file is for python -m bundle run; here it is {files[0]}, which --config changes")
    images = "datalist" if "datalist" in names else "dataset_dir"
    if images in names and images in options:
        raise ValueError(f"--{images} names other images than the command does; keep one of them")
    kept = {option: literal(name) for option, name in names.items() if option not in options}
    words = {name: [] if value is None else [value] for name, value in options.items()}
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

    Warns:
        DataWarning: naming options that nothing in these configurations uses.
    """
    if not options.get("config_file"):
        return
    content = load_checked(several(options["config_file"]))
    check_known(options, content, "--", own)
    for name, values in options.items():
        _check(name, part_of(name, content), values)
    tell_unused({name: " ".join(values) for name, values in options.items()}, content, "--")


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


def literal_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration whose files and folders keep their names; expressions are left to MONAI."""
    return {
        name: literal(value) if is_path(name) and isinstance(value, str) and not is_language(value) else value
        for name, value in settings.items()
    }


def _check(name: str, default: Any, values: Sequence[str]) -> None:
    """Refuse a value of a different kind from the configuration's; expressions are left to MONAI."""
    if not values:
        if not isinstance(default, bool):
            raise ValueError(f"--{name} has no value; write --{name} VALUE")
        return
    value = values[0]
    if is_language(value):
        return
    if value in NULL and not (is_path(name) and (name in NEVER_NULL or exists(value))):
        file = f"; a file of that name is ./{value}" if is_path(name) else ""
        raise ValueError(f"--{name} {value}: on the command line, null is written '$None'{file}")
    check_kind(name, default, _as_python(value), value)
    if name == "device":
        from bundle.system.processes import check_device

        check_device(value)


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
        and not is_language(values[0])
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
    """A value as MONAI's runner reads it, but with YAML's ``null``, ``true`` and ``false`` within brackets."""
    from fire.parser import DefaultParseValue

    found = DefaultParseValue(value)
    return found if isinstance(found, str) else _with_words(found)


def _with_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_words(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_with_words, value))
    return WORDS.get(value, value) if isinstance(value, str) else value


def refuse_words(options: Options) -> None:
    """Refuse ``null``, ``true`` and ``false`` within brackets, which MONAI's own runner takes for text.

    Args:
        options: as :func:`overrides` gives them, checked.

    Raises:
        ValueError: saying how to write them.
    """
    from fire.parser import DefaultParseValue

    for name, values in options.items():
        if values and not is_path(name) and _as_python(values[0]) != DefaultParseValue(values[0]):
            raise ValueError(f"--{name} {values[0]}: within brackets write None, True and False, as in Python")
