"""Find the error in a chain that says what is wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

WRAPPING = re.compile(r"applying transform |Failed to evaluate |Failed to instantiate component ")
"""How MONAI's errors say where they occurred."""
ABSENT = re.compile(r"path: 'bundle\.\w+\.(\w+)[.']|module 'bundle(?:\.\w+)?' has no attribute '(\w+)'")
"""How MONAI and Python report a name that a room of the bundle does not have."""


class DataWarning(UserWarning):
    """Something that the user should know about a usable file; shown in one line."""


def tried(read: Callable[[], T]) -> tuple[T | None, list[str]]:
    """What a function returns, and the lines that it warns of; or None, and why it refuses."""
    with warnings.catch_warnings(record=True) as caught:
        # Of all categories, it would stay Python's filter after its end, and show what libraries warn of at exit.
        warnings.simplefilter("always", DataWarning)
        try:
            found = read()
        except ValueError as error:
            return None, [str(error)]
    return found, [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]


def root_cause(error: BaseException) -> BaseException:
    """First error of a chain that is not one of MONAI's wrappers."""
    while error.__cause__ is not None and WRAPPING.match(str(error)):
        error = error.__cause__
    return error


@contextmanager
def unwrapped() -> Iterator[None]:
    """MONAI's errors about a configuration become the errors that they wrap."""
    try:
        yield
    except RuntimeError as error:
        raise root_cause(error) from None


def one_line(error: BaseException) -> str:
    """Message of an error in one line; for an error in a worker process, the message of the original error."""
    text = str(error)
    if "Original Traceback" in text:
        raised = re.findall(r"^[\w.]*(?:Error|Exception): (.*)$", text, re.MULTILINE)
        text = next((line for line in reversed(raised) if not WRAPPING.match(line)), text)
    elif isinstance(error, OSError) and error.filename is not None and text.startswith("[Errno"):
        text = f"{error.filename} cannot be read or written: {error.strerror}"
    return printable(text + _other_room(text)) or type(error).__name__


def _other_room(text: str) -> str:
    """Where a name is now, if a configuration written for another version looks for it in the wrong room."""
    absent = ABSENT.search(text)
    if absent is None:
        return ""
    name = absent[1] or absent[2]
    for face in sorted(Path(__file__).parents[1].glob("*/__init__.py")):
        if f'    "{name}",\n' in face.read_text() or face.with_name(f"{name}.py").exists():
            return f"; it is now bundle.{face.parent.name}.{name}"
    return ""


def printable(text: str) -> str:
    """A text as one line that any terminal and file can hold: what cannot be printed is escaped, as by ``ascii``.

    File names may hold anything: line ends, terminal colours, bytes that are not UTF-8.
    """
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def brief(error: BaseException) -> str:
    """The beginning of a message, without the places in source and memory that ITK puts in front."""
    text = re.sub(r"\S+\.[ch]xx:\d+:|(?:itk::|ITK )ERROR: (?:\w+\(0x\w+\): )?", "", one_line(error))
    return " ".join(text.rpartition("[nrrd] ")[2].split())[:160] or type(error).__name__
