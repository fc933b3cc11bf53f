"""Anthropic's shapes for what isn't a message: errors, whole and in a stream, and the list of models."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.sse import render

_encode = msgspec.json.Encoder().encode

_TYPE: dict[Kind, str] = {
    Kind.INVALID_REQUEST: "invalid_request_error",
    Kind.UNSUPPORTED_FEATURE: "invalid_request_error",
    Kind.INVALID_CREDENTIAL: "authentication_error",
    Kind.MODEL_NOT_ALLOWED: "permission_error",
    Kind.AGENT_FROZEN: "permission_error",
    Kind.POLICY_DENIED: "permission_error",
    Kind.MODEL_NOT_FOUND: "not_found_error",
    Kind.RUN_REQUIRED: "invalid_request_error",
    Kind.RUN_ENDED: "permission_error",
    Kind.FORBIDDEN_ROLE: "permission_error",
    Kind.BODY_TOO_LARGE: "request_too_large",
    Kind.BUDGET_EXCEEDED: "rate_limit_error",
    Kind.RATE_LIMITED: "rate_limit_error",
    Kind.UPSTREAM_FAILED: "api_error",
    Kind.UPSTREAM_UNAVAILABLE: "overloaded_error",
    Kind.STORE_UNAVAILABLE: "api_error",
    Kind.ISSUER_UNAVAILABLE: "api_error",
    Kind.UPSTREAM_TIMEOUT: "timeout_error",
}


class _Error(msgspec.Struct, omit_defaults=True):
    type: str
    message: str
    code: str
    param: str | None = None


class _Envelope(msgspec.Struct, omit_defaults=True, tag_field="type", tag="error"):
    error: _Error
    request_id: str = ""


class _Model(msgspec.Struct, tag_field="type", tag="model"):
    id: str
    display_name: str
    created_at: datetime
    lifecycle: str = "active"


class _Models(msgspec.Struct):
    data: list[_Model]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


def error_body(error: ProxyError, call_id: str = "") -> bytes:
    """The body of an error response; an upstream's own where it passes on. An empty `call_id` is left out."""
    return error.body if error.body is not None else _encode(_envelope(error, call_id))


def error_frame(error: ProxyError) -> bytes:
    """The event that ends a stream which can't go on: SDKs raise their APIStatusError for it."""
    return render(_encode(_envelope(error, "")), "error")


def models_body(names: Iterable[str], created: int) -> bytes:
    """`GET /v1/models`, all on one page. `created` is in Unix seconds."""
    data = [_model(name, created) for name in names]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return _encode(_Models(data, *ends))


def model_body(name: str, created: int) -> bytes:
    """`GET /v1/models/{id}`. `created` is in Unix seconds."""
    return _encode(_model(name, created))


def _model(name: str, created: int) -> _Model:
    return _Model(id=name, display_name=name, created_at=datetime.fromtimestamp(created, UTC))


def _envelope(error: ProxyError, call_id: str) -> _Envelope:
    detail = _Error(_TYPE[error.kind], error.message, error.kind.value, error.param)
    return _Envelope(detail, call_id)
