"""`on_cut: continue`: a cut stream goes on at the next target, and its caller sees one stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from io import StringIO
from typing import Any

import pytest
import pytest_asyncio
from rich.console import Console

from llm_proxy.admin.story import Story
from llm_proxy.cli.entry import call_entry
from llm_proxy.records.view import CostLabel, Status
from tests.e2e.continued_house import (
    MOST_FRAMES,
    SHORT,
    TEXT,
    House,
    assert_one_stream,
    open_house,
    streamed,
)
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, Agent, ChatAgent, MessagesAgent
from tests.proxy import OTHER_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESUMES = {
    "openai_chat": range(2, 7),
    "openai_responses": range(5, 13),
    "anthropic_messages": range(4, 10),
}
"""After how many frames a word had come and the finish had not."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("proxy")) as opened:
        yield opened


@pytest.mark.parametrize("second", UPSTREAMS)
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("agent_of", AGENTS, ids=[each.dialect for each in AGENTS])
async def test_every_caller_over_every_pair_of_targets(
    house: House, agent_of: type[Agent], first: str, second: str
) -> None:
    model = f"{SHORT[first]}-{SHORT[second]}"
    async with agent_of(house.proxy, model, run="run-1", think=False) as agent:
        heard = await agent.say("count", stream=True)
        assert (heard.text, heard.calls, heard.stop) == (TEXT, [], agent.ends[0])
        assert_one_stream(agent.dialect, agent.tape.bytes)
        view = house.view(agent)
        assert view.status is Status.OK
        assert [(a.target, a.failure, a.resumed) for a in view.attempts] == [
            (f"{model}.1", "cut", False),
            (f"{model}.2", "", True),
        ]
        assert view.reply is not None
        (choice,) = view.reply.choices
        assert (choice.text, choice.finish) == (TEXT, "stop")
        (piece,) = view.pieces
        assert (piece.dialect, piece.chars) == (first, len("one two three"))
        assert view.released == agent.tape.bytes
        assert view.cost_label is CostLabel.PARTIAL
        assert view.usage is not None
        assert view.usage.input >= 30 + 8
        assert view.usage.output >= 3 + 2
        assert (await agent.say("again", stream=True)).stop == agent.ends[0]


@pytest.mark.parametrize("after", range(MOST_FRAMES))
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("agent_of", AGENTS, ids=[each.dialect for each in AGENTS])
async def test_wherever_it_is_cut(house: House, agent_of: type[Agent], first: str, after: int) -> None:
    async with agent_of(house.proxy, f"{SHORT[first]}-{after}", run="run-2", think=False) as agent:
        heard = await agent.say("count", stream=True)
        assert (heard.text, heard.stop) == (TEXT, agent.ends[0])
        assert_one_stream(agent.dialect, agent.tape.bytes)
        view = house.view(agent)
        assert view.status is Status.OK
        assert view.attempts[-1].resumed is (after in RESUMES[first])
        assert len(view.attempts) == (2 if after < RESUMES[first].stop else 1)
        assert view.reply is not None
        assert view.reply.choices[0].text == TEXT


async def test_what_it_costs(house: House) -> None:
    view, text, frames = await streamed(house, "chat-chat")
    assert text == TEXT
    prompt, said = 8, 3
    assert view.cost_micro_usd == (prompt + 2 * said) + (30 + 2 * 2)
    assert view.usage is not None
    assert (view.usage.input, view.usage.output) == (prompt + 30, said + 2)
    assert view.cost_label is CostLabel.PARTIAL
    (usage,) = [frame["usage"] for frame in frames if frame.get("usage")]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (30, 2), "as the last target reported"


async def test_what_the_second_target_is_asked(house: House) -> None:
    await streamed(house, "chat-messages", max_tokens=100, temperature=0.5, stop=["END"])
    asked = house.asked("rest")
    assert asked["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "one two three"}]},
    ]
    assert (asked["max_tokens"], asked["temperature"], asked["stop_sequences"]) == (97, 0.5, ["END"])
    await streamed(house, "chat-responses", max_tokens=2)
    asked = house.asked("rest")
    assert asked["input"][-1] == {"type": "message", "role": "assistant", "content": "one two three"}
    assert asked["max_output_tokens"] == 16, "the least that it takes"
    await streamed(house, "chat-chat", max_tokens=2)
    asked = house.asked("rest")
    assert asked["messages"][-1] == {"role": "assistant", "content": "one two three"}
    assert asked["max_completion_tokens"] == 1


async def test_who_goes_on_may_call(house: House) -> None:
    async with ChatAgent(house.proxy, "then-calls", run="run-4", think=False) as agent:
        heard = await agent.say("count", stream=True)
        assert (heard.text, heard.calls) == ("one two three four", [("crm_read", {"id": "7"})])
        view = house.view(agent)
        assert view.reply is not None
        assert [call.name for call in view.reply.choices[0].calls] == ["crm_read"]
        assert [decision.decision for decision in view.decisions] == ["allow"]


async def test_no_thinking_is_asked_of_who_goes_on_in_messages(house: House) -> None:
    async with MessagesAgent(house.proxy, "thinks-messages", run="run-5") as agent:
        heard = await agent.say("count", stream=True)
        assert heard.text == TEXT
        assert "thinking" not in house.asked("rest")
        assert "thinking" in house.view(agent).dropped


async def test_a_whole_reply_is_not_streamed_anew(house: House) -> None:
    async with house.proxy.sdk() as sdk:
        reply = await sdk.chat.completions.create(
            model="chat-14", messages=[{"role": "user", "content": "hi"}]
        )
    assert reply.choices[0].message.content == TEXT
    assert reply.id != ""


async def test_a_reply_that_only_its_own_dialect_can_tell_passes_as_it_came(house: House) -> None:
    _, text, frames = await streamed(house, "chat-14", logprobs=True)
    assert text == TEXT
    assert frames[0]["created"] == 1_767_225_600, "the target's own envelope"
    view, _, _ = await streamed(house, "chat-chat", logprobs=True)
    assert view.status is Status.FAILED


async def test_the_hold_covers_the_prompt_twice_and_the_reply_read_again(house: House) -> None:
    view, _, _ = await streamed(house, "chat-chat", max_tokens=50)
    assert (view.held["input_tokens"], view.held["output_tokens"]) == (2 * 8 + 50, 50)
    view, text, frames = await streamed(house, "chat-chat", OTHER_KEY, max_tokens=50)
    assert view.held["input_tokens"] == 8, "there is no money for a second reading"
    assert (text, view.status) == ("one two three", Status.FAILED)
    assert frames[0]["created"] == 1_767_225_600, "so it passes as it came"


async def test_a_continued_response_is_gone_on_from(house: House) -> None:
    """No vendor keeps it under its id: the conversation is sent whole."""
    async with house.proxy.sdk() as sdk:
        async with sdk.responses.stream(model="responses-responses", input="count") as stream:
            first = await stream.get_final_response()
        assert first.output_text == TEXT
        asked: Any = {"model": "responses-rest", "input": "again", "previous_response_id": first.id}
        await sdk.responses.create(**asked)
    sent = house.asked("rest")
    assert "previous_response_id" not in sent
    assert [TEXT in json.dumps(item) for item in sent["input"]] == [False, True, False]


async def test_it_is_told_of_on_the_command_line(house: House) -> None:
    view, _, _ = await streamed(house, "chat-chat")
    console = Console(file=StringIO(), width=120)
    console.print(call_entry(Story().tell(view), 1, view.started_us))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "chat-chat.1 cut" in shown
    assert "continued at target chat-chat.2" in shown
    assert TEXT in shown
    assert "instead:" not in shown, "the agent got what was emitted"
