"""Errors in the shape of OpenAI's API, so that its clients raise what they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

JSON = "application/json"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class ErrorDetail(BaseModel):
    """What went wrong.

    Attributes:
        message: The rule, what was received and the way out.
        type: The class of errors.
        param: The field at fault.
        code: A name for programs.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class ProblemError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the body as OpenAI shapes it."""
        kind = _TYPES.get(self.status, "server_error")
        detail = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": detail}

    def response(self) -> Response:
        """Return the answer."""
        return Response(to_json(self.body()), self.status, self.headers, JSON)


def read_json(content: bytes) -> Any:
    """Return the value of a request's body.

    Raises:
        ProblemError: It is no JSON, or holds NaN or Infinity.
    """
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ProblemError(
            400, f"the body must be JSON, got: {error}", code="invalid_json"
        ) from error


async def on_leaving(_request: Request, _error: Exception) -> Response:
    """End a request whose client left, with nginx's status for it; nobody sees it."""
    return Response(status_code=499)


async def on_problem(_request: Request, error: Exception) -> Response:
    """Answer a `ProblemError`."""
    assert isinstance(error, ProblemError)
    return error.response()


async def on_http(_request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    problem = ProblemError(error.status_code, str(error.detail), headers=error.headers)
    return problem.response()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of an operation for its description."""
    return {
        status: {"model": ErrorBody, "description": _TYPES.get(status, "server_error")}
        for status in statuses
    }
