"""Reasoning over three turns of a tool loop, in every dialect, against a vendor that checks its seals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, ProxyProcess, config, headers, target, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

THOUGHTS = ("First I look the order up.", "It is late, so a refund is due.", "All of that is done.")
SCRIPT = """
default:
  turns:
    - when: {turn: 0}
      reasoning: First I look the order up.
      redacted: THIS WAS HIDDEN
      reasoning_field: reasoning_details
      tool_calls: [{name: order, arguments: {id: 7}}]
    - when: {turn: 1, tool_answered: order}
      reasoning: It is late, so a refund is due.
      reasoning_field: reasoning_details
      text: One moment.
      tool_calls: [{name: refund, arguments: {id: 7}}, {name: note, arguments: {id: 7}}]
    - when: {turn: 2, tool_answered: refund, last_tool_contains: done}
      reasoning: All of that is done.
      reasoning_field: reasoning_details
      text: Your money is on its way.
"""
PARAMETERS = {"type": "object", "properties": {"id": {"type": "integer"}}}
TOOLS = ("order", "refund", "note")
UPSTREAMS = ("m-chat", "m-responses", "m-messages")
CALLERS = ("chat", "responses", "messages")


@dataclass
class House:
    proxy: ProxyProcess
    upstream: Scripted
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    http: aiohttp.ClientSession

    def bodies(self) -> list[dict[str, Any]]:
        """What reached the vendor since the last time, in order."""
        seen = [json.loads(request.body) for request in self.upstream.seen]
        self.upstream.seen.clear()
        return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        targets: dict[str, dict[str, Any]] = {
            "m-chat": target("chat", upstream.base_url) | {"dialects": ["openai_chat"]},
            "m-responses": target("responses", upstream.base_url) | {"dialects": ["openai_responses"]},
            "m-messages": target("messages", upstream.origin, "claude-sonnet-4-5")
            | {"provider": "anthropic"},
        }
        settings = config(
            upstream.base_url,
            models={name: {"targets": [to], "retries": 0} for name, to in targets.items()},
            prices={},
            unpriced="free",
        )
        async with (
            ProxyProcess(tmp_path_factory.mktemp("thinks"), settings) as proxy,
            proxy.sdk() as chatty,
            anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=KEY, max_retries=0) as claude,
            aiohttp.ClientSession() as http,
        ):
            yield House(proxy, upstream, chatty, claude, http)


@dataclass
class Talk:
    """One agent's conversation. `thoughts` are the words of its replies, `sealed` what seals them."""

    history: list[Any]
    thoughts: list[str] = field(default_factory=list[str])
    sealed: list[list[Any]] = field(default_factory=list[list[Any]])
    text: str = ""
    call_ids: list[str] = field(default_factory=list[str])


async def ask_chat(house: House, model: str, talk: Talk, run: str, *, stream: bool) -> int:
    """One turn; how many calls it proposed. A stream's pieces of reasoning are sent back as they came."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": talk.history,
        "reasoning_effort": "medium",
        "tools": [{"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in TOOLS],
        "max_completion_tokens": 20_000,
    }
    message: dict[str, Any] = {"role": "assistant", "content": None}
    extra = {"x-run-id": run}
    if stream:
        details: list[Any] = []
        calls: dict[int, dict[str, Any]] = {}
        words = ""
        async for chunk in await house.openai.chat.completions.create(
            **asked, stream=True, extra_headers=extra
        ):
            delta = chunk.choices[0].delta.model_dump(exclude_none=True)
            details += delta.get("reasoning_details", [])
            words += delta.get("reasoning_content") or delta.get("reasoning") or ""
            if said := delta.get("content"):
                message["content"] = (message["content"] or "") + said
            for piece in delta.get("tool_calls", []):
                call = calls.setdefault(piece.pop("index"), {"function": {"name": "", "arguments": ""}})
                for key, value in piece.pop("function").items():
                    call["function"][key] += value
                call |= piece
        if details:
            message["reasoning_details"] = details
        if words:
            message["reasoning_content"] = words
        if calls:
            message["tool_calls"] = list(calls.values())
    else:
        reply = await house.openai.chat.completions.create(**asked, extra_headers=extra)
        message = reply.choices[0].message.model_dump(exclude_none=True)
    talk.history.append(message)
    talk.thoughts.append(message.get("reasoning_content") or message.get("reasoning") or "")
    talk.sealed.append(message.get("reasoning_details", []))
    talk.text = message.get("content") or ""
    called = message.get("tool_calls", [])
    talk.call_ids += [call["id"] for call in called]
    talk.history += [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in called]
    return len(called)


async def ask_responses(house: House, model: str, talk: Talk, run: str, *, stream: bool) -> int:
    tools = [{"type": "function", "name": n, "parameters": PARAMETERS, "strict": False} for n in TOOLS]
    asked: dict[str, Any] = {
        "model": model,
        "input": talk.history,
        "tools": tools,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "max_output_tokens": 20_000,
        "extra_headers": {"x-run-id": run},
    }
    if stream:
        async with house.openai.responses.stream(**asked) as events:
            async for _ in events:
                pass
            reply = await events.get_final_response()
    else:
        reply = await house.openai.responses.create(**asked)
    items = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in reply.output]
    thoughts = [item for item in items if item["type"] == "reasoning"]
    talk.history += items
    talk.sealed.append(thoughts)
    talk.thoughts.append(words_of(thoughts))
    talk.text = reply.output_text
    called = [item["call_id"] for item in items if item["type"] == "function_call"]
    talk.call_ids += called
    talk.history += [{"type": "function_call_output", "call_id": id_, "output": "done"} for id_ in called]
    return len(called)


async def ask_messages(house: House, model: str, talk: Talk, run: str, *, stream: bool) -> int:
    asked: dict[str, Any] = {
        "model": model,
        "messages": talk.history,
        "tools": [{"name": n, "input_schema": PARAMETERS} for n in TOOLS],
        "max_tokens": 20_000,
        "thinking": {"type": "enabled", "budget_tokens": 4_000},
        "extra_headers": {"x-run-id": run},
    }
    if stream:
        async with house.anthropic.messages.stream(**asked) as events:
            async for _ in events:
                pass
            reply = await events.get_final_message()
    else:
        reply = await house.anthropic.messages.create(**asked)
    blocks = [block.to_dict() for block in reply.content]
    thinking: list[dict[str, Any]] = [b for b in blocks if "thinking" in str(b["type"])]
    talk.history.append({"role": "assistant", "content": blocks})
    talk.sealed.append(thinking)
    talk.thoughts.append("".join(block.get("thinking", "") for block in thinking))
    talk.text = "".join(str(block["text"]) for block in blocks if block["type"] == "text")
    called = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]
    talk.call_ids += called
    results = [{"type": "tool_result", "tool_use_id": id_, "content": "done"} for id_ in called]
    if results:
        talk.history.append({"role": "user", "content": results})
    return len(called)


ASK = {"chat": ask_chat, "responses": ask_responses, "messages": ask_messages}


async def converse(house: House, caller: str, model: str, *, stream: bool) -> tuple[Talk, str]:
    run = f"{caller}-{model}-{stream}"
    talk = Talk([{"role": "user", "content": "Where is my order?"}])
    house.upstream.seen.clear()
    for calls in (1, 2, 0):
        assert await ASK[caller](house, model, talk, run, stream=stream) == calls
    assert talk.text == "Your money is on its way."
    return talk, run


def thinking_sent(body: dict[str, Any]) -> list[list[Any]]:
    """What each assistant turn of a body holds of reasoning, as its vendor reads it, the empty ones too."""
    if "input" in body:
        turns: list[list[Any]] = []
        fresh = True
        for item in body["input"]:
            mine = item.get("type") in ("reasoning", "function_call") or item.get("role") == "assistant"
            if mine and fresh:
                turns.append([])
            if item.get("type") == "reasoning":
                turns[-1].append(item)
            fresh = not mine
        return turns
    said = [message for message in body["messages"] if message["role"] == "assistant"]
    if any(isinstance(message.get("content"), list) for message in said):
        return [[block for block in m["content"] if "thinking" in block["type"]] for m in said]
    return [message.get("reasoning_details", []) for message in said]


whole_or_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@whole_or_streamed
@pytest.mark.parametrize(("caller", "model"), list(zip(CALLERS, UPSTREAMS, strict=True)))
async def test_in_one_dialect_every_seal_goes_back_byte_for_byte(
    house: House, caller: str, model: str, stream: bool
) -> None:
    talk, run = await converse(house, caller, model, stream=stream)
    assert talk.thoughts == list(THOUGHTS)
    assert all(talk.sealed), "every reply was sealed"
    first, second, third = house.bodies()
    assert thinking_sent(first) == []
    assert thinking_sent(second) == talk.sealed[:1]
    assert thinking_sent(third) == talk.sealed[:2]
    sent = json.dumps(third)
    assert ("signature" in sent) is (caller != "responses")
    assert ("encrypted_content" in sent) is (caller == "responses")
    views = house.proxy.views(run=run)
    assert [view.dropped for view in views] == [(), (), ()]
    for view, words in zip(views, THOUGHTS, strict=True):
        assert view.reply is not None
        parts = view.reply.choices[0].reasoning
        assert [part.text for part in parts if part.kind in ("raw", "summary")] == [words]


@whole_or_streamed
@pytest.mark.parametrize(
    ("caller", "model"),
    [(c, m) for i, c in enumerate(CALLERS) for j, m in enumerate(UPSTREAMS) if i != j],
)
async def test_in_two_dialects_the_loop_completes_with_its_seals(
    house: House, caller: str, model: str, stream: bool
) -> None:
    talk, run = await converse(house, caller, model, stream=stream)
    assert talk.thoughts == list(THOUGHTS), "each caller reads what the model thought"
    first, second, third = house.bodies()
    assert thinking_sent(first) == []
    if model == "m-chat":
        details = [[{k: v for k, v in d.items() if v} for d in t] for t in thinking_sent(third)]
        assert [words_of(turn) for turn in details] == list(THOUGHTS[:2])
        assert [bool(seals_of(turn)) for turn in details] == [True, True]
    else:
        assert [words_of(turn) for turn in thinking_sent(second)] == list(THOUGHTS[:1])
        assert [words_of(turn) for turn in thinking_sent(third)] == list(THOUGHTS[:2])
    views = house.proxy.views(run=run)
    assert [view.upstream_dialect for view in views] == [DIALECT_OF[model]] * 3
    dropped = {name for view in views for name in view.dropped}
    assert dropped <= {"store", "include", "reasoning.summary"}
    for earlier, later, back in ((views[0], views[1], thinking_sent(second)), (views[1], views[2], [])):
        assert earlier.reply is not None
        assert later.sent is not None
        for part in earlier.reply.choices[0].reasoning:
            seal = part.signature or (part.text if part.kind in ("encrypted", "redacted") else "")
            assert seal in json.dumps(json.loads(later.sent)), (part, back)


DIALECT_OF = {
    "m-chat": "openai_chat",
    "m-responses": "openai_responses",
    "m-messages": "anthropic_messages",
}


def words_of(turn: list[Any]) -> str:
    """The words of one turn's reasoning, whatever holds them."""
    words = ""
    for part in turn:
        words += part.get("thinking", "") or part.get("text", "") or ""
        summary = part.get("summary") or []
        words += summary if isinstance(summary, str) else "".join(inner["text"] for inner in summary)
        words += "".join(inner["text"] for inner in part.get("content") or [])
    return words


def seals_of(turn: list[Any]) -> list[str]:
    return [part.get("signature") or part.get("data") or "" for part in turn]


@whole_or_streamed
async def test_a_chat_client_that_forgets_the_reasoning_is_still_served_by_messages(
    house: House, stream: bool
) -> None:
    """Anthropic takes no thinking budget where the turn that goes on doesn't begin with thinking."""
    run = f"forgets-{stream}"
    talk = Talk([{"role": "user", "content": "Where is my order?"}])
    house.upstream.seen.clear()
    for calls in (1, 2, 0):
        assert await ask_chat(house, "m-messages", talk, run, stream=stream) == calls
        for message in talk.history:
            for name in ("reasoning_details", "reasoning_content", "reasoning"):
                message.pop(name, None)
    assert talk.text == "Your money is on its way."
    first, second, third = house.bodies()
    assert first["thinking"]["type"] == "enabled"
    assert "thinking" not in second
    assert "thinking" not in third
    assert [view.dropped for view in house.proxy.views(run=run)] == [(), ("thinking",), ("thinking",)]


async def test_the_caller_is_told_what_was_left_out(house: House) -> None:
    history: list[Any] = [
        {"role": "user", "content": "Where is my order?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I made this up.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "order", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    asked = {"model": "m-messages", "messages": history, "reasoning_effort": "low", "max_tokens": 9_000}
    async with house.http.post(house.proxy.url, json=asked, headers=headers()) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.headers["x-dropped-fields"] == "reasoning, thinking"
        call_id = reply.headers["x-call-id"]
    await until(lambda: house.proxy.view(call_id).status == "ok", "the call is recorded")
    view = house.proxy.view(call_id)
    assert view.dropped == ("reasoning", "thinking")
    assert view.sent is not None
    assert b"I made this up." not in view.sent
