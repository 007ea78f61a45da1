"""MONAI Label's web application: errors in one line, ids that cannot be paths, closed to pages of other sites."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.interfaces.exception import MONAILabelException

__all__ = ["app"]

IDS = ("id", "image", "label", "session_id", "tag")

# MONAI Label lets every page open in a browser read from the server, and fails if given a list of allowed ones.
app.user_middleware = [each for each in app.user_middleware if each.cls is not CORSMiddleware]


@app.middleware("http")
async def ids_are_no_paths(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse an id with a path separator, since MONAI Label uses ids as file names without a check."""
    for name, value in request.query_params.multi_items():
        if name in IDS and ({"/", "\\", "\0"} & set(value) or value in (".", "..")):
            return _refused(f"{name} is {value!r}; expected an id, which holds no path")
    return await answer(request)


@app.exception_handler(json.JSONDecodeError)
def not_json(request: Request, error: json.JSONDecodeError) -> JSONResponse:
    """Answer parameters that are not JSON, which MONAI Label reads before it asks the app."""
    return _refused(f"params is not JSON ({error}); expected an object, such as " + json.dumps({"moving": "ID"}))


@app.exception_handler(MONAILabelException)
def refused_by_monai_label(request: Request, error: MONAILabelException) -> JSONResponse:
    """Answer what MONAI Label refuses, such as a label for an image that does not exist."""
    return _refused(error.msg)


def _refused(message: str) -> JSONResponse:
    return JSONResponse({"detail": message}, status_code=400)
