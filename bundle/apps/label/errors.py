"""What reaches a client: errors as one line with an HTTP status, and no folder of the server."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError

from bundle.system import one_line, unwrapped

logger = logging.getLogger(__name__)

LINES = "details"
"""What MONAI Label calls the last lines of a task's process."""
OPENED = "path"
"""What MONAI Label calls the file of an image. 3D Slicer opens it where it exists, which a bare name may by chance."""


class ClientError(Exception):
    """A request that cannot be met.

    Args:
        message: one line: what was wrong, what was expected, what to do.
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def one_answer(names: Mapping[Path, str] | None = None) -> Iterator[None]:
    """Turn every error of the body into a ``ClientError``.

    Errors caused by an image or a configuration become 422, memory 507 and a bug of the program 500. The log gets the
    source location of a bug and no message, since a message may hold names of patients.

    Args:
        names: what messages call files instead of their paths.

    Raises:
        ClientError: for any error.
    """
    try:
        with unwrapped():
            yield
    except ClientError:
        raise
    except (MemoryError, OutOfMemoryError) as error:
        cause = without_folders(one_line(error), names)
        message = f"not enough memory: {cause}; give smaller images, or ask again when the server is idle"
        raise ClientError(message, HTTPStatus.INSUFFICIENT_STORAGE) from error
    except (ValueError, OSError, FloatingPointError) as error:
        message = without_folders(one_line(error), names)
        raise ClientError(message, HTTPStatus.UNPROCESSABLE_ENTITY) from error
    except Exception as error:
        kind = type(error).__name__
        logger.error("%s at\n%s", kind, "".join(traceback.format_tb(error.__traceback__)))
        message = f"the server failed with a {kind}; its log says where"
        raise ClientError(message, HTTPStatus.INTERNAL_SERVER_ERROR) from error


def without_folders(text: str, names: Mapping[Path, str] | None = None) -> str:
    """A message with files under other names, or without their folders, which are the server's alone."""
    for file, name in (names or {}).items():
        text = text.replace(str(file), name)
    return re.sub(r"(?<![\w.:/])/(?:[^\s/:;,'\"()]+/)+", "", text)


def without_paths(answer: Any, folders: Sequence[Path], key: str = "") -> Any:
    """An answer as JSON whose files have no folders: those that are values, and those in the lines of a task.

    Args:
        answer: what ``json.loads`` returns.
        folders: absolute folders to recognise in lines even if their names hold spaces.
        key: name of the answer in the one around it.
    """
    if isinstance(answer, dict):
        return {name: without_paths(value, folders, name) for name, value in answer.items()}
    if isinstance(answer, list):
        return [without_paths(value, folders, key) for value in answer]
    if not isinstance(answer, str):
        return answer
    if key == LINES:
        # An inner folder comes before those around it.
        for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
            found = rf"(?<![\w.:/]){re.escape(str(folder))}"
            answer = re.sub(rf"{found}/", "", answer)
            answer = re.sub(rf"{found}(?![\w.-])", folder.name.replace("\\", r"\\"), answer)
        return without_folders(answer)
    if re.match("/[^/]+/", answer):
        return "" if key == OPENED else Path(answer).name
    return answer
