"""Refusals and failures of the operators' side as JSON: `{"error": {"code", "message"}}`."""

from __future__ import annotations

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from llm_proxy.admin.errors import Conflict, ErrorBody, ErrorFacts, NotFound, Unclear
from llm_proxy.errors import STATUS, Kind, ProxyError

log = structlog.get_logger("llm_proxy.admin")

NOT_FOUND = "not_found"
CONFLICT = "conflict"


def answer_errors(app: FastAPI) -> None:
    """Gives every refusal of `app` its shape."""
    app.add_exception_handler(ProxyError, _proxy_error)
    app.add_exception_handler(NotFound, _not_found)
    app.add_exception_handler(Unclear, _unclear)
    app.add_exception_handler(Conflict, _conflict)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _store)


def _proxy_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProxyError)
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return _answer(error.status, error.kind.value, error.message, headers)


def _not_found(_: Request, error: Exception) -> Response:
    return _answer(404, NOT_FOUND, str(error))


def _unclear(_: Request, error: Exception) -> Response:
    return _answer(400, Kind.INVALID_REQUEST.value, str(error))


def _conflict(_: Request, error: Exception) -> Response:
    return _answer(409, CONFLICT, str(error))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return _answer(400, Kind.INVALID_REQUEST.value, "; ".join(problems))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = f"Nothing is at {request.url.path[:200]}; /admin/openapi.json lists what is."
        return _answer(404, NOT_FOUND, text)
    text = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _answer(error.status_code, Kind.INVALID_REQUEST.value, text, dict(error.headers or {}))


def _store(_: Request, error: Exception) -> Response:
    log.error("the store can't be read", error=type(error).__name__)
    kind = Kind.STORE_UNAVAILABLE
    return _answer(STATUS[kind], kind.value, "The store can't be read just now: try again shortly.")


def _answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode(ErrorBody(ErrorFacts(code, message)))
    return Response(body, status, headers, "application/json")
