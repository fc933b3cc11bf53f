"""What cuts a stream that may go on elsewhere, who goes on with it, and when nobody does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_proxy.records.view import CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.continued_house import (
    CHAT,
    TEXT,
    THOUGHT,
    House,
    config,
    open_house,
    rest,
    route,
    streamed,
)
from tests.e2e.dialect_agents import speaking
from tests.proxy import ProxyProcess
from tests.raw_upstream import Answer, events, raw_upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("proxy")) as opened:
        yield opened


@pytest.mark.parametrize("model", ["echoes", "echoes-messages"])
async def test_an_echo_is_left_out(house: House, model: str) -> None:
    view, text, _ = await streamed(house, model)
    assert (text, view.status) == (TEXT, Status.OK)
    assert view.reply is not None
    assert view.reply.choices[0].text == TEXT


async def test_blank_space_is_neither_lost_nor_doubled(house: House) -> None:
    """Anthropic refuses it behind the words that it's to go on with."""
    view, text, _ = await streamed(house, "spaced")
    assert text == "one two \n\n three"
    (block,) = house.asked("after-space")["messages"][-1]["content"]
    assert block["text"] == "one two"
    assert view.reply is not None
    assert view.reply.choices[0].text == text


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("stalls", "idle_timeout"),
        ("garbles", "malformed"),
        ("ends", "truncated"),
        ("overloads", "overloaded"),
    ],
)
async def test_whatever_cuts_it(house: House, model: str, kind: str) -> None:
    view, text, _ = await streamed(house, model)
    assert (text, view.status) == (TEXT, Status.OK)
    assert [attempt.failure for attempt in view.attempts] == [kind, ""]
    assert view.cost_micro_usd == (8 + 2 * 3) + (30 + 2 * 2), "also an overload, since words had come"


async def test_the_second_may_be_cut_too(house: House) -> None:
    view, text, _ = await streamed(house, "third")
    assert text == TEXT
    assert [(a.target, a.failure) for a in view.attempts] == [
        ("third.1", "cut"),
        ("third.2", "cut"),
        ("third.3", ""),
    ]
    assert [piece.chars for piece in view.pieces] == [len("one two three"), len(" four")]
    assert view.reply is not None
    assert view.reply.choices[0].text == TEXT
    assert house.asked("rest")["messages"][-1]["content"] == "one two three four"
    seen = (8 + 2 * 3) + (8 + 3 + 2 * 1)
    assert view.cost_micro_usd == seen + (30 + 2 * 1)


async def test_targets_that_give_nothing_are_passed_over(house: House) -> None:
    """Also one that refuses the request: it's the proxy's own, not the caller's."""
    view, text, _ = await streamed(house, "passes")
    assert (text, view.status) == (TEXT, Status.OK)
    assert [a.failure for a in view.attempts] == ["cut", "server_error", "bad_request", ""]
    assert [piece.chars for piece in view.pieces] == [len("one two three")]


@pytest.mark.parametrize(
    ("model", "said", "failures", "cost"),
    [
        ("alone", "one two three", ["cut"], 8 + 2 * 3),
        ("nobody", "one two three", ["cut", "server_error"], 8 + 2 * 3),
        ("refused", "one two three", ["cut", "bad_request"], 8 + 2 * 3),
        ("both-cut", "one two three four", ["cut", "cut"], (8 + 2 * 3) + (8 + 3 + 2 * 1)),
        ("off", "one two three", ["cut"], 8 + 2 * 3),
        ("unsaid", "one two three", ["cut"], 8 + 2 * 3),
    ],
)
async def test_where_nobody_goes_on(
    house: House, model: str, said: str, failures: list[str], cost: int
) -> None:
    view, text, frames = await streamed(house, model)
    assert text == said
    assert frames[-1]["error"]["code"] == "upstream_failed"
    assert view.status is Status.FAILED
    assert [attempt.failure for attempt in view.attempts] == failures
    assert view.reply is not None
    assert view.reply.choices[0].text == said
    assert (view.cost_micro_usd, view.cost_label) == (cost, CostLabel.PARTIAL)


async def test_a_reply_that_has_begun_a_call_is_not_continued(house: House) -> None:
    view, text, frames = await streamed(house, "calls")
    assert text == "one two three"
    assert "error" in frames[-1]
    assert [attempt.target for attempt in view.attempts] == [f"{view.model}.1"]


async def test_an_open_thought_is_not_continued(house: House) -> None:
    view, text, frames = await streamed(house, "thinks")
    assert text == ""
    assert "error" in frames[-1]
    assert [attempt.target for attempt in view.attempts] == [f"{view.model}.1"]


async def test_a_thought_that_has_ended_is_no_hindrance(house: House) -> None:
    """The whole text had come, in one piece: nothing but its end is left to say."""
    view, text, frames = await streamed(house, "thought")
    assert text == TEXT
    assert "error" not in frames[-1]
    assert view.reply is not None
    assert [part.text for part in view.reply.choices[0].reasoning] == [THOUGHT]


async def test_words_and_a_failure_in_one_packet(tmp_path: Path) -> None:
    """What came before the failure is released, and who goes on is given it."""
    head = {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "x"}

    def frame(text: str) -> bytes:
        chunk = {**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    failed = b'data: {"error":{"message":"busy","type":"overloaded_error"}}\n\n'

    def answer(body: bytes) -> Answer:
        return events(frame("one"), 0.2, frame(" two") + frame(" three") + failed)

    script = parse_script(json.dumps({"models": {"rest": {"turns": rest()}}}))
    async with raw_upstream(answer) as broken, running(script) as scripted:
        origin = broken.base_url.removesuffix("/v1")
        first, second = speaking(CHAT, "", origin, "x"), speaking(CHAT, "", scripted.anthropic_url, "rest")
        settings = config({"m": route(first, second)}, ["x", "rest"])
        async with ProxyProcess(tmp_path, settings) as proxy:
            view, text, _ = await streamed(House(proxy, scripted), "m")
            assert (text, view.status) == (TEXT, Status.OK)
            assert [piece.chars for piece in view.pieces] == [len("one two three")]
