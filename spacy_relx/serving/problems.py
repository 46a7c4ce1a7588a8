"""Errors as RFC 9457 problem details.

They are `application/problem+json` with title, status, detail and, where fields are wrong, which ones. No value that
was sent is repeated, and of what went wrong in here nothing but the kind is told: that is for the log.
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from spacy_relx.errors import ServerError
from spacy_relx.serving.batching import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"

_LOG = logging.getLogger(__name__)

#: Characters of a field's path: who makes up a name of megabytes does not get it back.
_MOST_OF_PATH = 200


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> JSONResponse:
    """Make the response for an error.

    Args:
        status: The HTTP status.
        detail: What is wrong and what to do.
        headers: Further headers.
        errors: Which fields of the body are wrong, each with `path` and `message`.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors is not None:
        content["errors"] = errors
    return JSONResponse(content, status, dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let an application answer every error with a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [{"path": _path(each["loc"]), "message": str(each["msg"])} for each in error.errors()]
        return problem(422, "The body is not what /relations takes; see errors and /openapi.json.", errors=errors)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, UnavailableError)
        return problem(503, str(error), headers={"Retry-After": str(math.ceil(error.retry_after))})

    async def without_answer(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("The server that computes the model: %s", error)
        return problem(
            502, "The server that computes the model gave no usable answer. Try again later; the log here says why."
        )

    async def failed(request: Request, error: Exception) -> JSONResponse:
        # The web server ends the connection after an error that was not foreseen; a client that was not told would send
        # its next request into the closing one.
        return problem(500, "The service failed at this request; its log says why.", headers={"Connection": "close"})

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(UnavailableError, unavailable)
    app.add_exception_handler(ServerError, without_answer)
    app.add_exception_handler(Exception, failed)


def _path(location: tuple[int | str, ...]) -> str:
    """`("body", "documents", 0, "text")` as `documents[0].text`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:]).lstrip(".")
    return path if len(path) <= _MOST_OF_PATH else f"{path[:_MOST_OF_PATH]}…"
