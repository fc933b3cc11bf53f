"""OpenAI chat completions, errors that an upstream reports inside a reply, in the shapes servers use."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Failed
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat import schema

_UNSAID = "The upstream reported an error"


class _Error(msgspec.Struct, gc=False):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _BareError(msgspec.Struct, gc=False):
    """An error without the `error` key around it (older vLLM)."""

    object: str | None = None
    message: str | None = None
    code: str | int | None = None


_error = msgspec.json.Decoder(_Error | str).decode
_bare_error = msgspec.json.Decoder(_BareError).decode

_body = msgspec.json.Decoder(schema.Body).decode


def failure(error: msgspec.Raw | msgspec.UnsetType) -> Failed | None:
    """The value of a reply's `error` key; an empty one is no error."""
    if isinstance(error, msgspec.UnsetType) or bytes(error) in (b"null", b"{}", b'""', b"false"):
        return None
    try:
        detail = _error(error)
    except CANNOT_READ:
        return Failed("The upstream reported an error of unknown shape")
    if isinstance(detail, str):
        return Failed(detail)
    code = detail.type if detail.code is None else detail.code
    return Failed(detail.message or _UNSAID, "" if code is None else str(code))


def failed_event(data: bytes) -> Failed:
    """The data of an `event: error` frame, whatever its shape."""
    try:
        failed = failure(_body(data).error) or failure(msgspec.Raw(data))
    except CANNOT_READ:
        failed = None
    return failed or Failed(_UNSAID)


def bare_failure(data: bytes) -> Failed | None:
    """A whole object that says of itself that it is an error."""
    try:
        bare = _bare_error(data)
    except CANNOT_READ:
        return None
    if bare.object != "error":
        return None
    return Failed(bare.message or _UNSAID, "" if bare.code is None else str(bare.code))
