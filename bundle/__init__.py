"""Meta-learned image registration as a MONAI bundle.

Rooms and their libraries, such as torch and MONAI, are imported when they are first used: ``bundle.meta`` works after
``import bundle``, which takes no time itself.
"""

from __future__ import annotations

import getpass
import json
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    getpass.getuser()
except (KeyError, OSError):  # MONAI's import needs the user's entry in the password file, which containers may lack
    os.environ["LOGNAME"] = f"uid{os.getuid()}"

if TYPE_CHECKING:
    from bundle.api import Registration, create_workflow, register

DISTRIBUTION = "meta-registration-bundle"
ROOMS = (
    *("data", "dicom", "evaluation", "experiment", "formats", "geometry", "maps", "meta", "pages", "registration"),
    *("results", "simulation", "system"),
)
__all__ = ["Registration", "create_workflow", "register", *ROOMS]


def __getattr__(name: str) -> Any:
    """Import a room, a name of ``bundle.api``, or the version, when it is first used."""
    if name == "__version__":
        return _version()
    if name in ROOMS:
        return import_module(f"bundle.{name}")
    if name in __all__:
        return getattr(import_module("bundle.api"), name)
    raise AttributeError(f"module 'bundle' has no attribute {name!r}")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a copy of the folder, as in an application
        return str(json.loads((import_module("bundle.system").CONFIGS / "metadata.json").read_text())["version"])


def version() -> str:
    """Name and version of the package, for ``--version``."""
    return f"{DISTRIBUTION} {_version()}"


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
