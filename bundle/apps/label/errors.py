"""Errors that reach the client as one line with an HTTP status."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from torch import OutOfMemoryError

from bundle.system import one_line, root_cause

logger = logging.getLogger(__name__)


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
        yield
    except ClientError:
        raise
    except (MemoryError, OutOfMemoryError) as error:
        cause = without_folders(one_line(error), names)
        message = f"not enough memory: {cause}; give smaller images, or ask again when the server is idle"
        raise ClientError(message, HTTPStatus.INSUFFICIENT_STORAGE) from error
    except (ValueError, OSError, FloatingPointError) as error:
        message = without_folders(one_line(root_cause(error)), names)
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
