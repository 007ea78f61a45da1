"""Configuration files: found from any folder, and read with a one-line error if something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.system.errors import brief
from bundle.system.files import CONFIGS
from bundle.system.limits import exists, expanded


def find_configurations(names: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find configurations: existing files, or names in this package such as ``configs/train.yaml`` or ``cpu.yaml``.

    Raises:
        FileNotFoundError: naming those that are neither.
    """
    listed = [names] if isinstance(names, str | Path) else names
    found = {name: _find(expanded(name)) for name in listed}
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


def load_configurations(names: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Read configurations; later ones override earlier ones.

    Raises:
        FileNotFoundError: as in :func:`find_configurations`.
        ValueError: for a file that is not a configuration.
    """
    from monai.bundle import ConfigParser  # which takes seconds

    files = find_configurations(names)
    for file in files:
        if file.suffix.lower() not in (".yaml", ".yml", ".json"):
            raise ValueError(f"configuration {file} is not YAML or JSON by its name; expected .yaml, .yml or .json")
    try:
        content = ConfigParser.load_config_files(list(map(str, files)))
    except Exception as error:  # PyYAML's errors have no common class with JSON's
        raise ValueError(f"configuration {', '.join(map(str, files))} cannot be read: {brief(error)}") from error
    return dict(content)


def unknown_option(names: Iterable[str], content: Mapping[str, Any]) -> str:
    """Message about options that a configuration does not have; lists the ones it has."""
    known = sorted(key for key, value in content.items() if not isinstance(value, dict))
    return f"unknown option {', '.join(names)}; known options are {', '.join(known)}"
