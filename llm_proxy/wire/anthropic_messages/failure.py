"""Anthropic Messages, errors that an upstream reports inside a reply."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Failed
from llm_proxy.wire.lenient import CANNOT_READ

_UNSAID = "The upstream reported an error"


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None
    code: str | int | None = None


class _Envelope(msgspec.Struct, gc=False):
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_error = msgspec.json.Decoder(_Error | str).decode
_envelope = msgspec.json.Decoder(_Envelope).decode


def failure(error: msgspec.Raw | msgspec.UnsetType) -> Failed:
    """The value of an `error` key. The code is the error's type (`overloaded_error`)."""
    if isinstance(error, msgspec.UnsetType):
        return Failed(_UNSAID)
    try:
        detail = _error(error)
    except CANNOT_READ:
        return Failed("The upstream reported an error of unknown shape")
    if isinstance(detail, str):
        return Failed(detail or _UNSAID)
    code = detail.code if detail.type is None else detail.type
    return Failed(detail.message or _UNSAID, "" if code is None else str(code))


def failed_event(data: bytes) -> Failed:
    """The data of an `event: error` frame, whatever its shape."""
    try:
        error = _envelope(data).error
    except CANNOT_READ:
        return Failed(_UNSAID)
    return failure(msgspec.Raw(data) if isinstance(error, msgspec.UnsetType) else error)
