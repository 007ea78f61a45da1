"""MONAI Label's web application, answering this app's errors and closed to the pages of other sites."""

from __future__ import annotations

import json

from fastapi import Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app

__all__ = ["app"]

# MONAI Label lets every page that a browser has open read from the server, and fails with a list of those that may.
app.user_middleware = [each for each in app.user_middleware if each.cls is not CORSMiddleware]


@app.exception_handler(json.JSONDecodeError)
def not_json(request: Request, error: json.JSONDecodeError) -> JSONResponse:
    """Answer parameters that are no JSON, which MONAI Label reads before it asks the app."""
    message = f"params is not JSON ({error}); expected an object, such as " + json.dumps({"moving": "ID"})
    return JSONResponse({"detail": message}, status_code=400)
