"""Configuration files: found from any folder, and read with a one-line error if something is wrong.

They are read here as MONAI reads them, without MONAI: that takes seconds to import, and a wrong option needs none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bundle.system.errors import brief
from bundle.system.files import CONFIGS
from bundle.system.limits import exists, expanded, is_same_file
from bundle.system.text import did_you_mean, distinct


class Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: MONAI would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping whose keys differ; ``<<`` is refused, as by MONAI."""
        distinct((self.construct_object(key, deep=True), value) for key, value in node.value)
        return super().construct_mapping(node, deep)


KEY = re.compile(r"( {0,2})(\w+(?:::\w+)*):(?: +(?!# )(.*?))??(?: +# (.*))?")
MORE = re.compile(r" +# (.*)")
"""Lines of a configuration as people read it: a key, or a part of one, with value and comment; more of the comment."""


def find_configurations(names: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find configurations: existing files, or names in this package: ``configs/train.yaml``, ``cpu.yaml`` or ``cpu``.

    Raises:
        FileNotFoundError: naming those that are neither.
    """
    listed = [names] if isinstance(names, str | Path) else names
    found = {name: _find(expanded(name)) or _find(expanded(f"{name}.yaml")) for name in listed}
    missing = [str(name) for name, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(f"configuration not found: {', '.join(missing)}; give a file, or a name in {CONFIGS}")
    return [path for path in found.values() if path is not None]


def _find(path: Path) -> Path | None:
    # No two files below it share a name, whichever folder they are in.
    below = sorted(CONFIGS.rglob(path.name)) if path.name == str(path) else []
    places = [path] if path.is_absolute() else [path, CONFIGS.parent / path, CONFIGS / path, *below]
    return next((place for place in places if exists(place) and place.is_file()), None)


def on_inference(names: str | Path | Sequence[str | Path]) -> list[str]:
    """Configurations of a registration: ``inference.yaml`` and what changes it, unless one of that kind is given."""
    listed = list(map(str, [names] if isinstance(names, str | Path) else names))
    base = any(Path(name).stem.startswith("inference") for name in listed)
    return listed if base else ["inference.yaml", *listed]


PARTS = ("fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks")
"""Files of a pair, beside its images and labels, that a registration of two images can name."""


def check_landmarks(parts: Iterable[str]) -> None:
    """Refuse the landmarks of one image of a pair: nothing would be measured.

    Args:
        parts: keys of the files of a pair.

    Raises:
        ValueError: naming the key that has no other.
    """
    given = [key for key in parts if key.endswith("_landmarks")]
    if len(given) == 1:
        other = next(key for key in PARTS if key.endswith("_landmarks") and key not in given)
        raise ValueError(
            f"{given[0]} without {other}: a distance is one of points in both images; give both, or neither"
        )


def images_named(folder: Path, fixed: str, moving: str | None, parts: Mapping[str, str | None]) -> dict[str, str]:
    """Options of a registration that name its images.

    Args:
        folder: gets a list of the one pair, if there is a moving image.
        fixed: the fixed image; without a moving image, a folder of images or a list of pairs.
        moving: the moving image.
        parts: other files of the pair by key, or None.

    Raises:
        ValueError: when files of a pair are named without its moving image, or landmarks without those of the other.
    """
    given = {key: name for key, name in parts.items() if name is not None}
    if moving is not None:
        check_landmarks(given)
        datalist, root = folder / "pair.json", Path.cwd()
        named = {"fixed_image": fixed, "moving_image": moving, **given}
        pair = {key: str(Path(name).absolute()) for key, name in named.items()}
        # From any folder the same: a patients.csv in the current one is of other images.
        patients = ["one"] if is_same_file(fixed, moving) else ["moving", "fixed"]
        datalist.write_text(json.dumps({"test": [{**pair, "patient": patients}]}))
    elif given:
        raise ValueError(
            f"--{next(iter(given))} belongs to two images, and only {fixed} is given; "
            "give the moving image too, or name the file in a datalist"
        )
    elif (place := Path(fixed)).is_file():
        datalist, root = place.absolute(), place.parent
    else:
        return {"dataset_dir": str(Path(fixed))}
    return {"dataset_dir": str(root), "datalist": str(datalist)}


def load_configurations(names: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Read configurations; later ones override earlier ones, as MONAI's ``ConfigParser.load_config_files`` has it.

    Raises:
        FileNotFoundError: as in :func:`find_configurations`.
        ValueError: for a file that is not a configuration.
    """
    content: dict[str, Any] = {}
    for file, changes in read_configurations(names):
        change(content, changes, file)
    return content


def read_configurations(names: str | Path | Sequence[str | Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Configurations with what each holds itself; errors are those of :func:`load_configurations`."""
    files = find_configurations(names)
    for file in files:
        if file.suffix.lower() not in (".yaml", ".yml", ".json"):
            raise ValueError(f"configuration {file} is not YAML or JSON by its name; expected .yaml, .yml or .json")
    return [(file, _read(file)) for file in files]


def change(content: dict[str, Any], changes: Mapping[str, Any], file: Path) -> None:
    """Put the keys of a later configuration, which is named in errors, into the content of those before."""
    for key, value in changes.items():
        try:
            put(content, key, value)
        except (ValueError, TypeError) as error:  # a part of a text cannot be changed
            raise ValueError(f"configuration {file} cannot be read: {brief(error)}") from error


def explained(names: str | Path | Sequence[str | Path]) -> dict[str, tuple[str, str]]:
    """What the comments of configurations say of their keys: ``{key: (default, meaning)}``, in the order of the file.

    Parts of a key that is no component are keys of their own, ``pair_limits::test``, and mean what the key means unless
    they say it themselves. Of a key in several files the last default counts. The definitions below the values are left
    out.

    Raises:
        FileNotFoundError: as in :func:`find_configurations`.
    """
    found: dict[str, tuple[str, str]] = {}
    for file in find_configurations(names):
        above = last = ""  # the key that the line is a part of, and the one that the line before explains
        for line in file.read_text().partition("\n# --- definitions")[0].splitlines():
            more, entry = MORE.fullmatch(line), KEY.fullmatch(line)
            if more is not None and last:
                found[last] = found[last][0], f"{found[last][1]} {more[1]}".strip()
            if entry is None:
                continue
            indent, key, value, meaning = entry.groups(default="")
            if not indent:
                above = last = key
            elif key == "_target_":
                last, meaning = above, f"{found[above][1]} {meaning}".strip()
            elif found[above][0]:
                continue  # a part of a component
            else:
                last = f"{above}::{key}"
            value = value[1:-1] if value[:1] in "'\"" and value[:1] == value[-1:] else value
            known = found.get(last, ("", ""))[1] or found.get(above, ("", ""))[1]
            found[last] = value, meaning or known
    return {key: (value, meaning) for key, (value, meaning) in found.items() if value}


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open() as opened:
            is_json = file.suffix.lower() == ".json"
            content = json.load(opened, object_pairs_hook=distinct) if is_json else Loader(opened).get_single_data()
        if not isinstance(content, dict):
            found = "nothing" if content is None else type(content).__name__
            raise ValueError(f"expected keys and values, found {found}")
        for key in content:
            if not isinstance(key, str):
                raise ValueError(f"expected names for keys, found {key!r}")
        return {key: _apart(value) for key, value in content.items()}
    except Exception as error:  # PyYAML's errors have no common class with JSON's
        raise ValueError(f"configuration {file} cannot be read: {brief(error)}") from error


def _apart(value: Any) -> Any:
    """A copy in which an anchor's value (``&name``) is another one wherever it stands, so that one can be changed."""
    if isinstance(value, dict):
        return {key: _apart(part) for key, part in value.items()}
    return [_apart(part) for part in value] if isinstance(value, list) else value


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a key of a later configuration into the content: ``a::b`` is part ``b`` of ``a``, ``+a`` adds to ``a``.

    Raises:
        ValueError: when there is no such ``a``, or nothing can be added to it.
    """
    *above, name = keys_of(key)
    place: Any = content
    try:
        for part in above:
            place = place[_index(place, part)]
        last = _index(place, name)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"{key} changes a part of {'::'.join(above)}, which is not there") from None
    if not key.startswith("+") or last not in (place if isinstance(place, dict) else range(len(place))):
        place[last] = value
    elif isinstance(value, dict) and isinstance(place[last], dict):
        place[last].update(value)
    elif isinstance(value, list) and isinstance(place[last], list):
        place[last].extend(value)
    else:
        kinds = f"{type(value).__name__} to {type(place[last]).__name__}"
        raise ValueError(f"{key} adds {kinds}; expected two lists or two mappings")


def keys_of(name: str) -> list[str]:
    """Keys along the path of a part of a configuration: ``pair_limits::test`` is a part of ``pair_limits``."""
    return name.removeprefix("+").replace("#", "::").split("::")


def _index(place: Any, key: str) -> Any:
    """A key of a mapping, or a place in a list."""
    return key if isinstance(place, dict) else int(key)


def unknown_option(names: Iterable[str], content: Mapping[str, Any], own: Collection[str] = ()) -> str:
    """Message about options that do not exist, with those that do: a command's own, then a configuration's in order.

    Args:
        names: the unknown options, as they were typed.
        content: options by name; those that hold parts are left out, since their parts are given.
        own: options of the command.
    """
    names, known = list(names), [*own, *(key for key in content if key not in set(own) and _is_value(content[key]))]
    prefix = "--" if names[0].startswith("-") else ""
    near = did_you_mean((re.split("::|#|=", name.lstrip("-+"))[0] for name in names), [*own, *content], prefix)
    there = f"; known options are {', '.join(prefix + name for name in known)}" if known else ""
    return f"unknown option {', '.join(names)}{near}{there}"


def _is_value(value: Any) -> bool:
    """Whether a part of a configuration is a value, not made of parts or steps."""
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(x, dict | str) for x in value)
    )
