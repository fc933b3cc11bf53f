"""OpenAI Responses, the request as sent on: the caller's bytes but for the values that must differ."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit

_encode = msgspec.json.Encoder().encode


def upstream_edits(
    request: WireRequest,
    model: str,
    cap: tuple[str, int] | None = None,
    *,
    ask_usage: bool = False,
) -> list[Edit]:
    """What the body for an upstream that knows the model as `model` changes, as slices to be replaced.

    `cap` limits output tokens: it goes into the cap that the body holds, else into a new key of that name.
    Usage comes without being asked for.
    """
    edits: list[Edit] = []
    if model != request.model:
        edits.append((*request.spans["model"], _encode(model)))
    if cap:
        edits += _cap_edits(request, *cap)
    return edits


def _cap_edits(request: WireRequest, name: str, value: int) -> list[Edit]:
    number = b"%d" % value
    span = request.spans.get(request.cap_fields[0] if request.cap_fields else name)
    if span is None:
        _, end = list(request.spans.values())[-1]
        return [(end, end, b',"%b":%b' % (name.encode(), number))]
    return [] if request.body[slice(*span)] == number else [(*span, number)]
