"""OpenAI Responses, `previous_response_id`: a request made whole from the calls it goes on from.

OpenAI keeps what it answered and takes up from there. Where the model is served in another dialect nobody
keeps it but the proxy's own record, from which the conversation is put together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llm_proxy.wire.members import NULL, given, items, members, to_array, to_object
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit
from llm_proxy.wire.sse import SseReader

_ENDS = ("response.completed", "response.incomplete")
_RESULT, _CUSTOM_RESULT = "function_call_output", "custom_tool_call_output"
_encode = msgspec.json.Encoder().encode


def response_id(call_id: str) -> str:
    """The id of a response that was written anew for this call."""
    return "resp_" + call_id.replace("-", "")


def input_items(body: bytes) -> list[bytes]:
    """The items of a request's input; a text is one message. Raises msgspec.DecodeError."""
    given_input = members(body).get("input", NULL)
    if given_input.startswith(b'"'):
        return [b'{"role":"user","content":%b}' % given_input]
    return items(given_input)


def output_items(received: bytes) -> list[bytes]:
    """The items of a reply, whole or streamed, as its caller received it. Raises msgspec.DecodeError."""
    if received.lstrip().startswith(b"{"):
        return items(members(received).get("output", NULL))
    reader = SseReader()
    for frame in (*reader.feed(received), *reader.close()):
        if frame.event in _ENDS:
            response = members(members(frame.data).get("response", NULL))
            return items(response.get("output", NULL))
    return []


def continued(body: bytes, earlier: Sequence[bytes]) -> bytes:
    """The request with everything said `earlier` in front of its input, and no previous response.

    The instructions of earlier calls don't carry over, as in OpenAI's API. Raises msgspec.DecodeError.
    """
    top = members(body)
    return to_object(
        {
            **{key: value for key, value in top.items() if key not in ("previous_response_id", "input")},
            "input": to_array([*earlier, *input_items(body)]),
        }
    )


def answers(request: WireRequest, denied: Iterable[tuple[str, bool, str]]) -> list[Edit]:
    """Edits that put a result for each denied call (id, whether freeform, note) in front of the input.

    The provider remembers a call that the agent never saw, and wants it answered before it goes on.
    """
    results = [
        _encode({"type": _CUSTOM_RESULT if custom else _RESULT, "call_id": id_, "output": note})
        for id_, custom, note in denied
    ]
    return around(request, results, ())


def around(request: WireRequest, front: Sequence[bytes], back: Sequence[bytes]) -> list[Edit]:
    """Edits that put items in front of the input and behind it, whatever form it has."""
    if not (front or back):
        return []
    if "input" not in request.spans:
        _, end = list(request.spans.values())[-1]
        return [(end, end, b',"input":' + to_array([*front, *back]))]
    start, end = request.spans["input"]
    if not (request.message_spans and request.body[start] == ord("[")):
        return [(start, end, to_array([*front, *input_items(request.body), *back]))]
    first, last = request.message_spans[0][0], request.message_spans[-1][1]
    edits: list[Edit] = [(first, first, b",".join(front) + b",")] if front else []
    return [*edits, (last, last, b"," + b",".join(back))] if back else edits


def previous(body: bytes) -> str:
    """The id in `previous_response_id`, empty where there is none."""
    top = members(body)
    if not given(top, "previous_response_id"):
        return ""
    found = msgspec.json.decode(top["previous_response_id"])
    return found if isinstance(found, str) else ""
