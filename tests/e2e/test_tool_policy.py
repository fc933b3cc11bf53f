"""A denied tool call never reaches the agent, in whatever form a model sends it.

Why a call is denied, and how the loop goes on after it, is in `test_tool_policy_runs.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pytest

from llm_proxy.records.view import Status
from tests.e2e.tool_policy_house import (
    ARRANGEMENTS,
    BAD,
    BAD2,
    CUSTOM,
    DONE,
    HIDDEN,
    OK,
    ROLE,
    SECRET,
    USAGE_CHUNK,
    Call,
    House,
    body_of,
    chunk_of,
    delta_of,
    ending,
    halves,
    hear,
    part_of,
    plain,
    received,
)
from tests.e2e.tool_policy_house import house as house
from tests.raw_upstream import events, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")


def one_delta_per_call(calls: Sequence[Call]) -> list[bytes]:
    parts = [part_of(i, call, name=call.name, arguments=call.arguments) for i, call in enumerate(calls)]
    return [ROLE, *parts, *ending()]


def without_index(calls: Sequence[Call]) -> list[bytes]:
    return [
        ROLE,
        *(part_of(None, call, name=call.name, arguments=call.arguments) for call in calls),
        *ending(),
    ]


def interleaved(calls: Sequence[Call]) -> list[bytes]:
    frames = [part_of(i, call, name=call.name, arguments="") for i, call in enumerate(calls)]
    for half in (0, 1):
        frames += [part_of(i, arguments=halves(call.arguments)[half]) for i, call in enumerate(calls)]
    return [ROLE, *frames, *ending()]


def name_later(calls: Sequence[Call]) -> list[bytes]:
    frames = [ROLE]
    for index, call in enumerate(calls):
        frames += [part_of(index, call), part_of(index, arguments=call.arguments)]
        frames += [part_of(index, name=piece) for piece in halves(call.name)]
    return frames + ending()


def in_one_delta(calls: Sequence[Call]) -> list[bytes]:
    parts = [
        {
            "index": i,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(calls)
    ]
    return [
        chunk_of({"index": 0, "delta": {"tool_calls": parts}, "finish_reason": "tool_calls"}),
        USAGE_CHUNK,
        DONE,
    ]


def text_around(calls: Sequence[Call]) -> list[bytes]:
    spoken = [delta_of({"content": "Let me "}), delta_of({"content": "see."})]
    after = delta_of({"content": " Done."})
    *frames, finish, usage, done = plain(calls)
    return [*frames[:1], *spoken, *frames[1:], after, finish, usage, done]


def byte_by_byte(calls: Sequence[Call]) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(plain(calls))]


def at_once(calls: Sequence[Call]) -> list[bytes]:
    return [b"".join(plain(calls))]


def finish_says_stop(calls: Sequence[Call]) -> list[bytes]:
    return [*plain(calls)[:-3], *ending("stop")]


def no_finish(calls: Sequence[Call]) -> list[bytes]:
    return [*plain(calls)[:-3], DONE]


def crlf(calls: Sequence[Call]) -> list[bytes]:
    return [b": hello\r\n\r\n"] + [frame.replace(b"\n", b"\r\n") for frame in plain(calls)]


STYLES: list[Callable[[Sequence[Call]], list[bytes]]] = [
    plain,
    one_delta_per_call,
    without_index,
    interleaved,
    name_later,
    in_one_delta,
    text_around,
    byte_by_byte,
    at_once,
    finish_says_stop,
    no_finish,
    crlf,
]


async def _check(
    house: House, calls: Sequence[Call], stream: bool, style: Callable[..., list[bytes]] = plain
) -> None:
    """A reply with `calls`: only the allowed ones come through, and the record holds both sides."""
    house.say(calls, stream, style)
    status, got, call_id = await received(house.proxy, stream=stream)
    assert status == 200
    assert SECRET.encode() not in got, "arguments of a denied call reached the client"
    view = house.proxy.view(call_id)
    denied = [call for call in calls if call in (BAD, BAD2) or call.name == BAD.name]
    allowed = [call for call in calls if call not in denied]
    for call in denied:
        if call.id not in [other.id for other in allowed]:
            assert call.id.encode() not in got
    judged = [(d.tool, d.decision) for d in view.decisions]
    expected = [(call.name, "deny" if call in denied else "allow") for call in calls]
    assert judged == expected or (style is without_index and sorted(judged) == sorted(expected))
    assert view.status is Status.OK
    assert view.released == got
    assert view.emitted == (b"".join(style(calls)) if stream else body_of(calls))
    heard = (await hear(house.proxy, stream))[0]
    if style is not without_index:  # there the SDK itself can't tell calls apart
        assert heard.tools == [tuple(call) for call in allowed]
    assert heard.content.count("denied by rule 'prohibited'") == len(denied)
    ends = "stop" if style is finish_says_stop or not allowed else "tool_calls"
    assert heard.finish == (None if style is no_finish else ends)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
async def test_a_whole_reply(house: House, arrangement: str) -> None:
    await _check(house, ARRANGEMENTS[arrangement], stream=False)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
async def test_a_streamed_reply(house: House, arrangement: str, style: Callable[..., list[bytes]]) -> None:
    calls = ARRANGEMENTS[arrangement]
    if style is without_index and arrangement.startswith("same id"):
        calls = [OK, BAD]  # without an index it is their ids that tell calls apart
    await _check(house, calls, stream=True, style=style)


@pytest.mark.parametrize("stream", [False, True])
async def test_two_choices(house: House, stream: bool) -> None:
    if stream:
        frames = [
            part_of(0, c, choice=i, name=c.name, arguments=c.arguments) for i, c in enumerate([OK, BAD])
        ]
        ends = [delta_of({}, choice=i, finish="tool_calls") for i in (0, 1)]
        house.answer[:] = [events(*frames, *ends, USAGE_CHUNK, DONE)]
    else:
        house.answer[:] = [whole(body_of([OK], [BAD]))]
    _, got, _ = await received(house.proxy, stream=stream, n=2)
    assert SECRET.encode() not in got
    heard = await hear(house.proxy, stream, n=2)
    assert (heard[0].tools, heard[0].finish) == ([tuple(OK)], "tool_calls")
    assert (heard[1].tools, heard[1].finish) == ([], "stop")
    assert "'prohibited'" in heard[1].content


LEGACY = {"name": "mail_send", "arguments": BAD.arguments}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "message", [{"function_call": LEGACY}, {"tool_calls": [CUSTOM]}], ids=["legacy", "custom"]
)
async def test_other_kinds_of_calls(house: House, message: dict[str, Any], stream: bool) -> None:
    if stream:
        house.answer[:] = [events(delta_of(message), *ending(next(iter(message)).rstrip("s")))]
    else:
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": None} | message,
        }
        house.answer[:] = [whole(json.dumps({"choices": [choice]}).encode())]
    status, got, call_id = await received(house.proxy, stream=stream)
    assert status == 200
    assert SECRET.encode() not in got
    assert [d.decision for d in house.proxy.view(call_id).decisions] == ["deny"]


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_can_not_be_judged_is_not_released(house: House, name: str) -> None:
    model = f"broken-{list(HIDDEN).index(name)}"  # a target of its own, since it will rest
    house.answer[:] = [events(delta_of({"content": "Hi"}), 0.02, HIDDEN[name], *ending("stop"))]
    _, got, call_id = await received(house.proxy, stream=True, model=model)
    assert SECRET.encode() not in got
    assert house.proxy.view(call_id).status in (Status.FAILED, Status.CUT)
    with pytest.raises(openai.APIError):
        await hear(house.proxy, stream=True, model=model)
