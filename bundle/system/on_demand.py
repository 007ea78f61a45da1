"""Imports at the first use: files of the rooms, as torch and MONAI take seconds, and libraries of the extras."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def on_demand(room: str, init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a room.

    The imports that its ``__init__.py`` has under ``if TYPE_CHECKING`` are made when their names are first used, and
    files of the room when they are first named. A name that a file of the room has as well would be the file.

    Args:
        room: ``__name__`` of the room.
        init: ``__file__`` of the room.
    """
    block = next(part for part in ast.parse(Path(init).read_text()).body if isinstance(part, ast.If))
    imports = [part for part in block.body if isinstance(part, ast.ImportFrom)]
    places = {alias.name: str(part.module) for part in imports for alias in part.names}

    def find(name: str) -> Any:
        if name in places:
            return getattr(import_module(places[name]), name)
        if Path(init).with_name(f"{name}.py").exists():
            return import_module(f"{room}.{name}")
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return find, lambda: sorted({*vars(import_module(room)), *places})


class Later:
    """A module that is imported at its first use.

    Args:
        name: name of the module.
        extra: extra of the package that installs it.
        purpose: what it is needed for, as the beginning of a sentence.
    """

    def __init__(self, name: str, extra: str, purpose: str) -> None:
        self._name, self._extra, self._purpose = name, extra, purpose

    def __getattr__(self, attribute: str) -> Any:
        """An attribute of the module.

        Raises:
            ModuleNotFoundError: when it is not installed, saying how to.
        """
        if attribute.startswith("__"):  # asked by copy, pickle and inspect of the object itself
            raise AttributeError(attribute)
        try:
            module = import_module(self._name)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{self._purpose} needs {self._name}, which is not installed; "
                f"pip install 'meta-registration-bundle[{self._extra}]'",
                name=self._name,
            ) from None
        return getattr(module, attribute)


itk = Later("itk", "dicom", "reading and writing DICOM, NRRD, MetaImage and transforms of ITK")
highdicom = Later("highdicom", "dicom", "writing a DICOM segmentation")
