"""OpenAI Responses, `previous_response_id`: a request made whole from the calls it goes on from.

OpenAI keeps what it answered and takes up from there. Where the model is served in another dialect nobody
keeps it but the proxy's own record, from which the conversation is put together again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.wire.members import NULL, given, items, members, to_array, to_object
from llm_proxy.wire.sse import SseReader

_ENDS = ("response.completed", "response.incomplete")
_encode = msgspec.json.Encoder().encode


def response_id(call_id: str) -> str:
    """The id of a response that was written anew for this call."""
    return "resp_" + call_id.replace("-", "")


def call_id(response: str) -> str:
    """The call whose reply has this id; empty where it is none of ours."""
    digits = response.removeprefix("resp_")
    if digits == response or len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return ""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


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


def previous(body: bytes) -> str:
    """The id in `previous_response_id`, empty where there is none."""
    top = members(body)
    if not given(top, "previous_response_id"):
        return ""
    found = msgspec.json.decode(top["previous_response_id"])
    return found if isinstance(found, str) else ""
