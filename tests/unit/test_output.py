"""How a reply reaches its caller: verbatim, edited, or in another dialect with its denied calls left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.archive.content import fold
from llm_proxy.chat.events import CallDelta, Ended, Event, Finished, Frame, Started, Text
from llm_proxy.output import Translated, Verbatim
from llm_proxy.wire.dialect import About, Dialect
from llm_proxy.wire.dialects import DIALECTS

CHAT = DIALECTS["openai_chat"]
DENIED = {(0, 1): "Not allowed: refund."}
CALLERS = ("openai_chat", "openai_responses", "anthropic_messages")
callers = pytest.mark.parametrize("caller", [DIALECTS[name] for name in CALLERS], ids=CALLERS)


def about(caller: Dialect) -> About:
    key = "input" if caller.name == "openai_responses" else "messages"
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "stream": True}
    asked[key] = [{"role": "user", "content": "hi"}]
    if caller.name == "openai_responses":
        del asked["max_tokens"]
    request = caller.parse(json.dumps(asked).encode())
    return About(call_id="0199a000-0000-7000-8000-000000000001", model="m", created=1, request=request)


def call(index: int, name: str) -> CallDelta:
    return CallDelta(0, index, f"call_{index}", name, f'{{"secret":{index}}}')


HEAD: list[Event] = [Started("r", "m"), Text(0, "One moment.")]
CALLS: list[Event] = [call(0, "order"), call(1, "refund")]
END: list[Event] = [Finished(0, "tool_call"), Ended()]


def frames(*events: list[Event]) -> list[Frame]:
    return [Frame(b"-", tuple(each)) for each in events]


@callers
@pytest.mark.parametrize("denied", [{}, DENIED, {(0, 0): "No.", **DENIED}])
def test_streams_leave_denied_calls_out(caller: Dialect, denied: dict[tuple[int, int], str]) -> None:
    output = Translated(caller, CHAT, about(caller))
    (head,) = frames(HEAD)
    out = output.pass_on(output.read(head))
    out += output.judged(frames(CALLS, END), denied, frozenset({0}))
    out += output.close()
    reply = fold(caller, out, stream=True).choices[0]
    kept = [name for index, name in enumerate(("order", "refund")) if (0, index) not in denied]
    assert [each.name for each in reply.calls] == kept
    assert reply.text.startswith("One moment.")
    for (_, index), note in denied.items():
        assert note in reply.text
        assert b'secret":%d' % index not in out.replace(b"\\", b"")
    assert reply.finish == ("tool_call" if kept else "stop")


@callers
def test_whole_replies_leave_denied_calls_out(caller: Dialect) -> None:
    output = Translated(caller, CHAT, about(caller))
    (frame,) = frames([*HEAD, *CALLS, *END])
    out = output.whole(output.read(frame), DENIED)
    reply = fold(caller, out, stream=False).choices[0]
    assert [each.name for each in reply.calls] == ["order"]
    assert "Not allowed: refund." in reply.text
    assert b'secret":1' not in out.replace(b"\\", b"")
    assert output.anew


@callers
def test_tags_that_are_cut_anywhere_become_reasoning(caller: Dialect) -> None:
    said = "<think>Two plus two.</think>It is four."
    for size in (1, 3, 7):
        output = Translated(caller, CHAT, thinking(caller))
        out = b""
        for at in range(0, len(said), size):
            out += output.pass_on(output.read(Frame(b"-", (Text(0, said[at : at + size]),))))
        out += output.pass_on(output.read(Frame(b"-", (Finished(0, "stop"), Ended())))) + output.close()
        reply = fold(caller, out, stream=True).choices[0]
        assert reply.text == "It is four."
        assert "".join(part.text for part in reply.reasoning) == "Two plus two."


def thinking(caller: Dialect) -> About:
    if caller.name != "anthropic_messages":
        return about(caller)
    asked = json.loads(about(caller).request.body) | {"thinking": {"type": "adaptive"}}
    return About(call_id="c", model="m", created=1, request=caller.parse(json.dumps(asked).encode()))


def test_bytes_pass_in_one_dialect_unless_a_call_is_denied() -> None:
    body = json.dumps(
        {
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                        ],
                    },
                }
            ]
        }
    ).encode()
    output = Verbatim(CHAT)
    frame = output.read(CHAT.read_body(body))
    assert output.whole(frame, {}) is body
    assert output.pass_on(frame) is body
    assert output.close() == b""
    edited = json.loads(output.whole(frame, {(0, 0): "No."}))["choices"][0]
    assert (edited["message"]["content"], edited["finish_reason"]) == ("No.", "stop")


@callers
def test_calls_have_the_ids_that_the_agent_will_answer(caller: Dialect) -> None:
    """An id that Messages can't spell is changed once, for the verdict and the agent alike."""
    output = Translated(caller, CHAT, about(caller))
    odd = CallDelta(0, 0, "functions.order:0|x", "order", "{}")
    read = output.read(Frame(b"-", (Started("r", "m"), odd, Finished(0, "tool_call"), Ended())))
    judged = next(event for event in read.events if isinstance(event, CallDelta))
    body = output.whole(read, {})
    answered = fold(caller, body, stream=False).choices[0].calls[0]
    assert answered.id == judged.id
    assert (judged.id == odd.id) == (caller.name != "anthropic_messages")
