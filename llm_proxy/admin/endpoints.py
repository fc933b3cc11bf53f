"""What the paths under `/admin` are made of: parameters, bodies and answers."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Path, Query, Request, Response
from pydantic import AfterValidator

from llm_proxy.admin.errors import Unclear
from llm_proxy.errors import Kind, ProxyError

MAX_BODY = 65_536
MAX_TEXT = 256
"""Characters of an id, or of what is filtered by."""
T = TypeVar("T")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that don't print")
    return value


Id = Annotated[str, AfterValidator(_printable), Path(max_length=MAX_TEXT)]
Filter = Annotated[str | None, AfterValidator(lambda v: v and _printable(v)), Query(max_length=MAX_TEXT)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def holds(shape: str) -> dict[str, Any]:
    """A body of that shape, as the OpenAPI document says it."""
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}}


def answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"cache-control": "no-store"}, "application/json")


async def body_of(request: Request, kind: type[T], example: str) -> T:
    """The request's JSON as `kind`. Raises `Unclear` for what is none; body_too_large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ProxyError(Kind.BODY_TOO_LARGE, f"The body is over {MAX_BODY} bytes: send less.")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unclear(f"The body is not as it should be, such as {example}: {error}") from None
