"""Anthropic Messages, the request as sent on: the caller's bytes but for the values that must differ."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit

_encode = msgspec.json.Encoder().encode


def upstream_edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    """The model's name as the upstream knows it, and the cap on its output. Usage comes unasked."""
    edits = count_edits(request, model)
    if cap is None:
        return edits
    name, value = cap
    number = b"%d" % value
    for field in request.cap_fields or (name,):
        span = request.spans.get(field)
        if span is None:
            _, end = list(request.spans.values())[-1]
            edits.append((end, end, b',"%b":%b' % (field.encode(), number)))
        elif request.body[slice(*span)] != number:
            edits.append((*span, number))
    return edits


def count_edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    """The model's name alone: counting tokens has no output to cap."""
    return [] if model == request.model else [(*request.spans["model"], _encode(model))]
