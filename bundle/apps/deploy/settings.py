"""Settings of the application, from its configuration file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bundle.data.layouts import SIDES
from bundle.system import one_line

DEFAULT = Path(__file__).with_name("app.yaml")
VARIABLE = "HOLOSCAN_CONFIG_PATH"
"""Environment variable in which MONAI Deploy names the configuration file of a run."""
KEYS = {"config_file": (str, list), "weights": (str,), "steps": (int,)}


@dataclass(frozen=True)
class Settings:
    """Content of a configuration file.

    Attributes:
        config_file: configuration of the bundle and its overlays.
        weights: name of the file in the models folder.
        steps: gradient steps on the pair.
        series: conditions on the DICOM series of each side, by attribute.
    """

    config_file: tuple[str, ...]
    weights: str
    steps: int
    series: Mapping[str, Mapping[str, Any]]

    def rules(self, side: str) -> str:
        """Rules of the MONAI Deploy selector for the fixed or moving series, as JSON."""
        return json.dumps({"selections": [{"name": side, "conditions": dict(self.series[side])}]})

    def weights_in(self, models: Path) -> Path:
        """The file of the weights.

        Args:
            models: the file, or the folder that holds it, directly or in a sub-folder as packagers leave it.

        Raises:
            FileNotFoundError: when it is missing.
        """
        if models.is_file():
            return models
        found = sorted({*models.glob(self.weights), *models.glob(f"*/{self.weights}")})
        if not found:
            raise FileNotFoundError(
                f"no {self.weights} in the models folder {models}; give the bundle's folder models with -m, or a file"
            )
        return found[0]


def read_settings(path: str | Path | None = None) -> Settings:
    """Read the sections ``registration`` and ``series`` of a configuration file.

    Args:
        path: the file; None takes the one named in the environment, else the application's own.

    Raises:
        ValueError: in one line, when it is not as expected.
    """
    file = Path(path or os.environ.get(VARIABLE) or DEFAULT)
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"configuration {file} cannot be read: {one_line(error)}") from error
    try:
        return _settings(content)
    except ValueError as error:
        raise ValueError(f"configuration {file}: {error}; {DEFAULT} shows what is expected") from error


def _settings(content: Any) -> Settings:
    registration, series = (_section(content, name) for name in ("registration", "series"))
    if registration.keys() != KEYS.keys():
        raise ValueError(f"registration has {_names(registration)}, expected {_names(KEYS)}")
    for key, kinds in KEYS.items():
        if not isinstance(registration[key], kinds) or isinstance(registration[key], bool):
            raise ValueError(
                f"registration: {key} is {registration[key]!r}, expected {' or '.join(k.__name__ for k in kinds)}"
            )
    if Path(registration["weights"]).name != registration["weights"] or not registration["weights"]:
        raise ValueError(
            f"registration: weights is {registration['weights']!r}, expected a file's name without folders"
        )
    if series.keys() != set(SIDES):
        raise ValueError(f"series has {_names(series)}, expected {_names(SIDES)}")
    for side in SIDES:
        _check_conditions(side, _section(series, side))
    files = registration["config_file"]
    return Settings(
        config_file=(files,) if isinstance(files, str) else tuple(map(str, files)),
        weights=registration["weights"],
        steps=registration["steps"],
        series=series,
    )


def _section(content: Any, name: str) -> dict[str, Any]:
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict) or not section:
        raise ValueError(f"no section {name}")
    return section


def _names(keys: Any) -> str:
    return ", ".join(map(str, keys))


def _check_conditions(side: str, conditions: Mapping[str, Any]) -> None:
    """Refuse conditions that the selector would fail on, or ignore.

    Raises:
        ValueError: naming the attribute.
    """
    for attribute, value in conditions.items():
        if not isinstance(value, str | int | float | list) or isinstance(value, bool) or value in ("", [], 0):
            raise ValueError(
                f"series, {side}: {attribute} is {value!r}, expected a text, a number other than 0, or a list"
            )
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(
                    f"series, {side}: {attribute} is {value!r}, no regular expression ({error})"
                ) from error
