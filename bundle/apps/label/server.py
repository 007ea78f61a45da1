"""MONAI Label's web application: errors in one line, no paths either way, closed to pages of other sites."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.config import settings
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance

from bundle.apps.label.errors import without_folders, without_paths

__all__ = ["app"]

IDS = ("id", "image", "label", "session_id", "tag")
ANSWERING = ("activelearning", "batch", "datastore", "infer", "info", "model", "scoring", "session", "train")
"""First parts of the addresses under which the app answers; others serve pages, logs and other servers' answers."""

# MONAI Label lets every page open in a browser read from the server, and fails if given a list of allowed ones.
app.user_middleware = [each for each in app.user_middleware if each.cls is not CORSMiddleware]


@app.middleware("http")
async def ids_are_no_paths(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse an id with a path separator, since MONAI Label uses ids as file names without a check."""
    for name, value in request.query_params.multi_items():
        if name in IDS and ({"/", "\\", "\0"} & set(value) or value in (".", "..")):
            return _refused(f"{name} is {value!r}; expected an id, which holds no path")
    return await answer(request)


@app.middleware("http")
async def answers_hold_no_paths(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Take the folders of the server out of what MONAI Label tells of images, uploads and tasks."""
    response = await answer(request)
    own = request.url.path.startswith(tuple(f"{settings.MONAI_LABEL_API_STR}/{name}/" for name in ANSWERING))
    if not own or response.headers.get("content-type") != "application/json":
        return response
    content = json.loads(b"".join([part async for part in response.body_iterator]) or "null")
    return JSONResponse(without_paths(content, _folders()), response.status_code)


@app.exception_handler(json.JSONDecodeError)
def not_json(request: Request, error: json.JSONDecodeError) -> JSONResponse:
    """Answer parameters that are not JSON, which MONAI Label reads before it asks the app."""
    return _refused(f"params is not JSON ({error}); expected an object, such as " + json.dumps({"moving": "ID"}))


@app.exception_handler(MONAILabelException)
def refused_by_monai_label(request: Request, error: MONAILabelException) -> JSONResponse:
    """Answer what MONAI Label refuses, such as a label for an image that does not exist."""
    return _refused(without_folders(error.msg))


def _folders() -> list[Path]:
    """Folders of files that the lines of a task may name."""
    instance = app_instance()
    named = [Path(text).parent for value in instance.conf.values() for text in value.split(",")]
    ours = [instance.app_dir, instance.studies, Path.home(), tempfile.gettempdir(), sys.prefix]
    folders = {*named, *map(Path, ours), Path(__file__).parents[3]}
    return [folder for folder in folders if folder.is_absolute() and folder.name]


def _refused(message: str) -> JSONResponse:
    return JSONResponse({"detail": message}, status_code=400)
