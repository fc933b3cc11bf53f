"""A reply that goes on in a second one, streamed and whole, as the official SDKs read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_proxy.policy.gate import Gate
from llm_proxy.scripted.model import Dialect as Spoken
from llm_proxy.scripted.model import ScriptedModel, parse_request
from llm_proxy.scripted.script import parse_script
from llm_proxy.wire.adding_up import added_up
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.sse import SseReader

FIRST = """{reasoning: I should mail it., text: One moment., usage: {input: 100, cached: 40, output: 20},
  tool_calls: [{name: mail_send, arguments: {to: SECRET}}, {name: mail_send, arguments: {to: SECRET2}}]}"""
MUTE = (
    "{tool_calls: [{name: mail_send, arguments: {to: SECRET}}], usage: {input: 100, cached: 40, output: 20}}"
)
SECOND = """{reasoning: I can't mail. I look., text: I look instead.,
  usage: {input: 150, cached: 100, output: 30},
  tool_calls: [{name: crm_read, arguments: {id: "7"}}]}"""
LAST = "{text: It is done., usage: {input: 200, output: 7}}"

_ASKED: dict[str, tuple[Spoken, dict[str, Any]]] = {
    "openai_chat": (Spoken.CHAT, {"stream_options": {"include_usage": True}}),
    "anthropic_messages": (
        Spoken.MESSAGES,
        {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    ),
    "openai_responses": (Spoken.RESPONSES, {"reasoning": {"effort": "low", "summary": "auto"}}),
}


def frames_of(name: str, turn: str, *, stream: bool = True) -> list[bytes]:
    spoken, more = _ASKED[name]
    user = [{"role": "user", "content": "hi"}]
    key = "input" if name == "openai_responses" else "messages"
    more = {k: v for k, v in more.items() if stream or k != "stream_options"}
    body = {"model": "m", key: user, "stream": stream} | more
    request = parse_request(json.dumps(body).encode(), {"anthropic-version": "2023-06-01"}, spoken)
    script = parse_script(f"default: {{turns: [{turn}]}}")
    return list(ScriptedModel(script).answer(request).frames)


def before_calls(dialect: Dialect, stream: bytes) -> list[bytes]:
    """The frames of a stream that the gate lets flow while its calls wait."""
    gate, read = Gate(judging=True, ordered=dialect.ordered), dialect.frame_reader()
    frames = [read(sse) for sse in SseReader().feed(stream)]
    return [frame.raw for frame in frames if gate.admit(frame) and not gate.held]


def onwards(name: str, turns: Sequence[str], said: str = "") -> bytes:
    """The stream of these replies as a caller gets it, none of the earlier calls in it."""
    dialect = DIALECTS[name]
    assert dialect.onwards is not None
    came: list[bytes] = []
    so_far = b""
    for turn in turns:
        frames = frames_of(name, turn)
        flowing = frames if turn is turns[-1] else before_calls(dialect, b"".join(frames))
        if came:
            onward = dialect.onwards.stream(so_far, came)
            head = onward.say(said) if said and len(came) == 1 else b""
            so_far += head + b"".join([onward.frame(frame) for frame in flowing])
        else:
            so_far = b"".join(flowing)
        came.append(b"".join(frames))
    return so_far


async def _read(name: str, reply: bytes, *, stream: bool = True) -> Any:
    """What the official SDK makes of it, as plain data."""
    kind = "text/event-stream" if stream else "application/json"
    if name == "anthropic_messages":
        transport: Any = httpx2.MockTransport(
            lambda _: httpx2.Response(200, content=reply, headers={"content-type": kind})
        )
        client: Any = anthropic.AsyncAnthropic(
            base_url="http://x", api_key="k", http_client=httpx2.AsyncClient(transport=transport)
        )
        asked: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": []}
        if not stream:
            return (await client.messages.create(**asked)).to_dict()
        async with client.messages.stream(**asked) as events:
            return (await events.get_final_message()).to_dict()
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=reply, headers={"content-type": kind})
    )
    client = openai.AsyncOpenAI(
        base_url="http://x", api_key="k", http_client=httpx.AsyncClient(transport=transport)
    )
    if name == "openai_chat":
        if not stream:
            return (await client.chat.completions.create(model="m", messages=[])).to_dict()
        async with client.chat.completions.stream(model="m", messages=[]) as events:
            return (await events.get_final_completion()).to_dict()
    if not stream:
        return (await client.responses.create(model="m", input="hi")).to_dict()
    async with client.responses.stream(model="m", input="hi") as events:
        return (await events.get_final_response()).to_dict()


def _data(stream: bytes) -> list[dict[str, Any]]:
    lines = [line for line in stream.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("first", [FIRST, MUTE], ids=["spoke", "mute"])
@pytest.mark.parametrize("rounds", [1, 2])
async def test_a_chat_stream_goes_on(first: str, rounds: int) -> None:
    got = onwards("openai_chat", [*[first] * rounds, SECOND])
    assert b"SECRET" not in got
    chunks = _data(got)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert (ends, got.count(b"[DONE]")) == (["tool_calls"], 1)
    told = await _read("openai_chat", got)
    (choice,) = told["choices"]
    texts = ["One moment."] * (rounds if first is FIRST else 0) + ["I look instead."]
    assert choice["message"]["content"] == "\n\n".join(texts)
    assert [(c["index"], c["function"]["name"]) for c in choice["message"]["tool_calls"]] == [(0, "crm_read")]
    usage = told["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (150 + 100 * rounds, 30 + 20 * rounds)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 100 + 40 * rounds


@pytest.mark.parametrize("first", [FIRST, MUTE], ids=["spoke", "mute"])
@pytest.mark.parametrize("rounds", [1, 2])
async def test_a_messages_stream_goes_on(first: str, rounds: int) -> None:
    got = onwards("anthropic_messages", [*[first] * rounds, SECOND])
    assert b"SECRET" not in got
    events = _data(got)
    types = [event["type"] for event in events]
    assert (types.count("message_start"), types.count("message_delta"), types[-1]) == (1, 1, "message_stop")
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    stops = [event["index"] for event in events if event["type"] == "content_block_stop"]
    assert starts == stops == list(range(len(starts)))
    told = await _read("anthropic_messages", got)
    kinds = [block["type"] for block in told["content"]]
    before = ["thinking", "text"] if first is FIRST else ["thinking"]
    assert kinds == before * rounds + ["thinking", "text", "tool_use"]
    assert all(block["signature"] for block in told["content"] if block["type"] == "thinking")
    assert told["stop_reason"] == "tool_use"
    usage = told["usage"]
    assert usage["output_tokens"] == 30 + 20 * rounds
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == 150 + 100 * rounds


@pytest.mark.parametrize("first", [FIRST, MUTE], ids=["spoke", "mute"])
@pytest.mark.parametrize("rounds", [1, 2])
async def test_a_responses_stream_goes_on(first: str, rounds: int) -> None:
    got = onwards("openai_responses", [*[first] * rounds, SECOND])
    assert b"SECRET" not in got
    events = _data(got)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    types = [event["type"] for event in events]
    assert (types.count("response.created"), types.count("response.completed")) == (1, 1)
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    told = await _read("openai_responses", got)
    before = ["reasoning", "message"] if first is FIRST else []
    kinds = [item["type"] for item in told["output"]]
    assert kinds == before * rounds + ["reasoning", "message", "function_call"]
    assert [item["id"] for item in told["output"]] == [event["item"]["id"] for event in added]
    assert told["id"] == events[0]["response"]["id"]
    assert told["usage"]["input_tokens"] == 150 + 100 * rounds
    assert told["usage"]["total_tokens"] == 180 + 120 * rounds


@pytest.mark.parametrize("name", _ASKED)
async def test_words_that_waited_stand_between(name: str) -> None:
    told = await _read(name, onwards(name, [FIRST, LAST], "By the way."))
    if name == "openai_chat":
        assert told["choices"][0]["message"]["content"] == "One moment.\n\nBy the way.\n\nIt is done."
    elif name == "anthropic_messages":
        texts = [block["text"] for block in told["content"] if block["type"] == "text"]
        assert texts == ["One moment.", "By the way.", "It is done."]
    else:
        messages = [item for item in told["output"] if item["type"] == "message"]
        assert [m["content"][0]["text"] for m in messages] == ["One moment.", "By the way.", "It is done."]


@pytest.mark.parametrize("name", _ASKED)
async def test_whole_replies_are_one(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.onwards is not None
    bodies = [b"".join(frames_of(name, turn, stream=False)) for turn in (FIRST, SECOND)]
    got = dialect.onwards.body(bodies[:1], bodies[1])
    assert b"SECRET" not in got
    told = await _read(name, got, stream=False)
    if name == "openai_chat":
        message = told["choices"][0]["message"]
        assert message["content"] == "One moment.\n\nI look instead."
        assert message["reasoning_content"] == "I should mail it.\n\nI can't mail. I look."
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["crm_read"]
        assert told["usage"]["total_tokens"] == 300
    elif name == "anthropic_messages":
        kinds = [block["type"] for block in told["content"]]
        assert kinds == ["thinking", "text", "thinking", "text", "tool_use"]
        assert told["usage"]["output_tokens"] == 50
    else:
        kinds = [item["type"] for item in told["output"]]
        assert kinds == ["reasoning", "message", "reasoning", "message", "function_call"]
        assert told["id"] == json.loads(bodies[1])["id"]
        assert told["usage"]["total_tokens"] == 300


def test_usage_adds_up_however_deep() -> None:
    one = b'{"a":1,"b":{"c":2,"d":null},"e":"x","f":true}'
    other = b'{"a":10,"b":{"c":20,"d":5},"e":"y","g":0.5,"f":false}'
    assert json.loads(added_up([one, other, b"not json"])) == {
        "a": 11,
        "b": {"c": 22, "d": 5},
        "e": "y",
        "f": False,
        "g": 0.5,
    }
    assert added_up([]) == b"null"
