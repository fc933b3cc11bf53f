"""OpenAI's shapes for what isn't a completion: errors, whole and in a stream, and the list of models."""

from __future__ import annotations

from collections.abc import Iterable

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
    Kind.MODEL_NOT_FOUND: "invalid_request_error",
    Kind.RUN_REQUIRED: "invalid_request_error",
    Kind.RUN_ENDED: "permission_error",
    Kind.FORBIDDEN_ROLE: "permission_error",
    Kind.BODY_TOO_LARGE: "invalid_request_error",
    Kind.BUDGET_EXCEEDED: "insufficient_quota",
    Kind.RATE_LIMITED: "rate_limit_error",
    Kind.UPSTREAM_FAILED: "server_error",
    Kind.UPSTREAM_UNAVAILABLE: "server_error",
    Kind.STORE_UNAVAILABLE: "server_error",
    Kind.ISSUER_UNAVAILABLE: "server_error",
    Kind.UPSTREAM_TIMEOUT: "server_error",
}


class _Error(msgspec.Struct, omit_defaults=True):
    message: str
    type: str
    param: str | None
    code: str
    call_id: str = ""


class _Envelope(msgspec.Struct):
    error: _Error


class _Model(msgspec.Struct):
    id: str
    created: int
    object: str = "model"
    owned_by: str = "llm-proxy"


class _Models(msgspec.Struct):
    data: list[_Model]
    object: str = "list"


def error_body(error: ProxyError, call_id: str = "") -> bytes:
    """The body of an error response; an upstream's own where it passes on. An empty `call_id` is left out."""
    return error.body if error.body is not None else _encode(_envelope(error, call_id))


def error_frame(error: ProxyError) -> bytes:
    """The event that ends a stream which can't go on.

    Official SDKs raise their APIError for data with an `error` key. No `[DONE]` follows it.
    """
    return render(_encode(_envelope(error, "")))


def models_body(names: Iterable[str], created: int) -> bytes:
    """`GET /v1/models`. `created` is in Unix seconds."""
    return _encode(_Models(data=[_Model(id=name, created=created) for name in names]))


def model_body(name: str, created: int) -> bytes:
    """`GET /v1/models/{id}`. `created` is in Unix seconds."""
    return _encode(_Model(id=name, created=created))


def _envelope(error: ProxyError, call_id: str) -> _Envelope:
    detail = _Error(error.message, _TYPE[error.kind], error.param, error.kind.value, call_id)
    return _Envelope(detail)
