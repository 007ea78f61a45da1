"""Which error of a chain says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

WRAPPING = re.compile(r"applying transform |Failed to evaluate |Failed to instantiate component ")
"""What MONAI says, from the error itself, about where it was."""


ABSENT = re.compile(r"path: 'bundle\.\w+\.(\w+)[.']|module 'bundle(?:\.\w+)?' has no attribute '(\w+)'")
"""How MONAI and Python speak of a name that a room of the bundle does not have."""


class DataWarning(UserWarning):
    """Something about a file that the user should know, though it can be used; shown in one line."""


def root_cause(error: BaseException) -> BaseException:
    """First error of a chain that is not MONAI's wrapping of another."""
    while error.__cause__ is not None and WRAPPING.match(str(error)):
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Message of an error in one line; of an error in a worker process, that of the error itself."""
    text = str(error)
    if "Original Traceback" in text:
        raised = re.findall(r"^[\w.]*(?:Error|Exception): (.*)$", text, re.MULTILINE)
        text = next((line for line in reversed(raised) if not WRAPPING.match(line)), text)
    return printable(text + _other_room(text)) or type(error).__name__


def _other_room(text: str) -> str:
    """Where a name is that a configuration looks for in the wrong room, as those written for another version do."""
    absent = ABSENT.search(text)
    if absent is None:
        return ""
    name = absent[1] or absent[2]
    for face in sorted(Path(__file__).parents[1].glob("*/__init__.py")):
        if f'    "{name}",\n' in face.read_text() or face.with_name(f"{name}.py").exists():
            return f"; it is now bundle.{face.parent.name}.{name}"
    return ""


def printable(text: str) -> str:
    """A text in one line that any terminal and file can hold: what has no print is escaped, as in ``ascii``.

    Names of files may hold anything: line ends, colours of a terminal, bytes that are no UTF-8.
    """
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def brief(error: BaseException) -> str:
    """The beginning of a message, without what ITK puts before it: where it was in its source and in memory."""
    text = re.sub(r"\S+\.[ch]xx:\d+:|(?:itk::|ITK )ERROR: (?:\w+\(0x\w+\): )?", "", one_line(error))
    return " ".join(text.rpartition("[nrrd] ")[2].split())[:160] or type(error).__name__
