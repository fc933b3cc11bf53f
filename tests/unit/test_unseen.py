"""What is put back into a history of which its agent saw a part: each reply once, and by its own calls."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

import pytest

from llm_proxy.chat.prompt import CallPart, Message, ResultPart, Role, TextPart
from llm_proxy.records.runstate import RunKey
from llm_proxy.unseen import MOST_PUT, Unseen, UnseenTurns, encode, key_of, retold
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.retelling import Called

RUN = RunKey("bot", "r")
NOTE = "[llm-proxy] The call to 'rm' was denied by rule 'prohibited'."


def kept(size: int = 100_000, note: str = NOTE) -> Unseen:
    return Unseen(
        calls=((0, CallPart(id="c0", name="rm", arguments=json.dumps({"x": "A" * size}))),),
        results=(ResultPart(call_id="c0", parts=(TextPart(text=NOTE),)),),
        note=note,
    )


def turn(id_: str, arguments: str = "{}", text: str = NOTE) -> dict[str, Any]:
    call = {"id": id_, "type": "function", "function": {"name": "ok", "arguments": arguments}}
    return {"role": "assistant", "content": text, "tool_calls": [call]}


def key(id_: str, arguments: str = "{}") -> str:
    return key_of("", (Called(id_, arguments),))


async def told(rows: dict[str, Unseen], *messages: dict[str, Any]) -> list[Any]:
    """The messages as they go out."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, *messages]}
    request = OPENAI_CHAT.parse(json.dumps(body).encode())
    stored = {name: encode(row) for name, row in rows.items()}
    found = await retold(OPENAI_CHAT, request, UnseenTurns(lambda _, wanted: _of(stored, wanted)), RUN)
    return json.loads((found.request if found else request).body)["messages"][1:]


def _of(rows: dict[str, bytes], wanted: Set[str]) -> dict[str, bytes]:
    return {name: row for name, row in rows.items() if name in wanted}


def put_back(messages: list[Any]) -> list[int]:
    """The turns that hold what was denied."""
    turns = [message for message in messages if message["role"] == "assistant"]
    return [n for n, one in enumerate(turns) if "rm" in json.dumps(one.get("tool_calls"))]


@pytest.mark.asyncio
async def test_one_kept_reply_is_put_back_once() -> None:
    messages = await told({key("c1"): kept()}, *[turn("c1")] * 100)
    assert put_back(messages) == [0]
    assert len(json.dumps(messages)) < 100_000 + 100 * 300
    assert messages[0]["content"] is None
    assert messages[-1]["content"] == NOTE


@pytest.mark.asyncio
async def test_the_turn_that_has_the_note_is_the_one() -> None:
    messages = await told({key("c1"): kept(9)}, turn("c1", text="before"), turn("c1"), turn("c1"))
    assert put_back(messages) == [1]
    assert messages[0] == turn("c1", text="before")


@pytest.mark.asyncio
async def test_equal_words_have_their_denied_rounds_once() -> None:
    rounds = (
        Message(role=Role.ASSISTANT, parts=kept(9).calls[0][1:]),
        Message(role=Role.USER, parts=kept(9).results),
    )
    done = {"role": "assistant", "content": "Done."}
    messages = await told({key_of("Done.", ()): Unseen(rounds=rounds)}, done, done)
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant", "assistant"]
    assert len([message for message in messages if message.get("tool_calls")]) == 1


@pytest.mark.asyncio
async def test_what_is_put_back_into_one_request_is_bounded() -> None:
    rows = {key(f"c{n}"): kept(250_000) for n in range(1, 11)}
    messages = await told(rows, *[turn(f"c{n}") for n in range(1, 11)])
    assert put_back(messages) == [0, 1, 2, 3]
    assert len(json.dumps(messages)) < MOST_PUT + 10_000
    assert [message["content"] for message in messages if message["role"] == "assistant"][4:] == [NOTE] * 6


def test_replies_that_reuse_an_id_are_told_apart_by_their_arguments() -> None:
    assert key("call_0", '{"a": 1, "b": "é"}') == key("call_0", '{"b":"\\u00e9","a":1}')
    assert key("call_0", '{"a": 1}') != key("call_0", '{"a": 2}')
    assert key("call_0", "") == key("call_0", "{}")
    assert key("call_0", "no JSON") != key("call_0", "no  JSON")


@pytest.mark.asyncio
async def test_nothing_is_remembered_of_what_is_not_there() -> None:
    turns = UnseenTurns(lambda _, __: {})
    for n in range(5):
        assert await turns.of(RUN, [f"{n}.{m}" for m in range(1_000)]) == {}
    assert (turns.size, len(turns._rows)) == (0, 0)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.asyncio
async def test_a_worker_remembers_so_many_bytes_of_the_newest_rows() -> None:
    row = encode(kept(1_000))
    asked: list[int] = []

    def load(_: RunKey, wanted: Set[str]) -> dict[str, bytes]:
        asked.append(len(wanted))
        return dict.fromkeys(wanted, row)

    turns = UnseenTurns(load, most=5 * len(row))
    for n in range(20):
        assert len(await turns.of(RUN, [str(n), str(max(0, n - 1))])) == (2 if n else 1)
    assert turns.size == 5 * len(row)
    assert asked == [1] * 20
