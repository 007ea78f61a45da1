"""Meta-learned image registration as a MONAI bundle.

Rooms and what they need, torch and MONAI among it, are imported when they are first asked for: ``bundle.meta`` works
after ``import bundle``, which takes no time itself.
"""

from __future__ import annotations

import getpass
import json
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    getpass.getuser()
except (KeyError, OSError):  # a user without an entry in the password file, as in containers, stops the import of MONAI
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
    """A room, what ``bundle.api`` has, or the version, when it is first asked for."""
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
    except metadata.PackageNotFoundError:  # a copy of the folder, as of an application
        return str(json.loads((import_module("bundle.system").CONFIGS / "metadata.json").read_text())["version"])


def version() -> str:
    """Name and version of the package, for ``--version``."""
    return f"{DISTRIBUTION} {_version()}"


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
