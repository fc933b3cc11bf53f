"""OpenAI chat completions, the request as sent on: the caller's bytes but for the values that must differ."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit, object_spans, splice

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_ASK = b'{"include_usage":true}'


def upstream_body(
    request: WireRequest,
    model: str,
    cap: tuple[str, int] | None = None,
    ask_usage: bool = False,  # noqa: FBT001
) -> bytes:
    """The body for an upstream that knows the model as `model`; the caller's own where nothing changes.

    `cap` limits completion tokens: it goes into every cap that the body already holds, else into a new key of
    that name. `ask_usage` makes a stream end with its usage.
    """
    return splice(request.body, upstream_edits(request, model, cap, ask_usage=ask_usage))


def upstream_edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    """What `upstream_body` changes in the body, as slices to be replaced."""
    edits: list[Edit] = []
    if model != request.model:
        edits.append((*request.spans["model"], _encode(model)))
    if cap:
        edits += _cap_edits(request, *cap)
    if ask_usage and request.stream and not request.include_usage:
        edits.append(_usage_edit(request))
    return edits


def _cap_edits(request: WireRequest, name: str, value: int) -> list[Edit]:
    number = b"%d" % value
    fields = request.cap_fields or (name,)
    edits = [_set(request, field, number) for field in fields]
    return [edit for edit in edits if request.body[edit[0] : edit[1]] != edit[2]]


def _usage_edit(request: WireRequest) -> Edit:
    span = request.spans.get("stream_options")
    if span is None or request.body[slice(*span)] == b"null":
        return _set(request, "stream_options", _ASK)
    raws = _raws(request.body[slice(*span)])
    inner = object_spans(request.body, raws, span[0])
    if "include_usage" in inner:
        return (*inner["include_usage"], b"true")
    if not inner:
        return (*span, _ASK)
    _, end = list(inner.values())[-1]
    return (end, end, b',"include_usage":true')


def _set(request: WireRequest, key: str, value: bytes) -> Edit:
    """Replace the value of a top-level key, or append the key behind the last one."""
    if span := request.spans.get(key):
        return (*span, value)
    _, end = list(request.spans.values())[-1]
    return (end, end, b',"%b":%b' % (key.encode(), value))
