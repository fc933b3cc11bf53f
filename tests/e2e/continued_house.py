"""What the tests of cut and continued replies share: scripts, routes, and what a stream says of itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.records.view import CallView
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import UPSTREAMS, Agent, speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, headers

TEXT = "one two three four five"
WORDS = TEXT.split()
MOST_FRAMES = 15
"""Frames of the longest stream of `TEXT`, and two more."""
PACE_S = 0.005
"""Between frames, so that each is released before the next one comes."""
SHORT = {"openai_chat": "chat", "openai_responses": "responses", "anthropic_messages": "messages"}
CHAT = "openai_chat"
THOUGHT = "I should count."
MIDDLE = {"openai_chat": 4, "openai_responses": 7, "anthropic_messages": 6}
"""Frames after which three words have come."""
PACED = {"delta_s": PACE_S}


def rest() -> list[dict[str, Any]]:
    """Turns that go on with any beginning of `TEXT` that ends with a word; without one they say all of it."""
    turns: list[dict[str, Any]] = []
    for count in range(len(WORDS), 0, -1):
        said = " ".join(WORDS[:count])
        left = TEXT.removeprefix(said)
        usage = {"input": 30, "output": len(WORDS) - count}
        turns.append({"when": {"last_assistant_contains": said}, "text": left, "usage": usage})
    return [*turns, {"text": TEXT, "usage": {"input": 20, "output": 5}}]


def cut(after: int) -> list[dict[str, Any]]:
    return [{"text": TEXT, "cut_after": after, "delta_s": PACE_S, "usage": {"input": 20, "output": 5}}]


def route(*targets: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A model whose cut streams go on, and whose targets are always asked in order."""
    usual = {"retries": 0, "affinity": "none", "breaker": {"failures": 1000}}
    return {"on_cut": "continue", **usual, "targets": [*targets], **more}


def pair(first: str, second: str, origin: str, model: str, then: str = "rest") -> dict[str, Any]:
    return route(speaking(first, "", origin, model), speaking(second, "", origin, then))


def config(models: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Every model that targets know is a micro-dollar for a token in, and two for one out.

    The targets of model `m` are `m.1`, `m.2` and so on.
    """
    for name, model in models.items():
        for number, target in enumerate(model["targets"], 1):
            target["id"] = f"{name}.{number}"
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 1000}
    return {
        "server": {"drain_s": 1},
        "models": models,
        "agents": {
            "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
            "poor": {"keys": [OTHER_KEY], "models": ["*"]},
        },
        "budgets": [
            {"id": "plenty", "agent": "bot", "window": "run", "input_tokens": 1_000_000},
            {"id": "purse", "agent": "poor", "window": "run", "input_tokens": 15},
        ],
        "prices": dict.fromkeys(names, price),
    }


def told(stream: bytes) -> list[dict[str, Any]]:
    """The data of a stream's frames."""
    lines = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def assert_one_stream(dialect: str, stream: bytes) -> None:
    """It begins once, ends once, and counts without a gap: nothing tells that two targets made it."""
    frames = told(stream)
    match dialect:
        case "openai_chat":
            assert len({frame["id"] for frame in frames}) == 1
            roles = [c["delta"]["role"] for f in frames for c in f["choices"] if "role" in c["delta"]]
            ends = [c["finish_reason"] for f in frames for c in f["choices"] if c["finish_reason"]]
            assert (roles, len(ends)) == (["assistant"], 1)
            assert stream.count(b"data: [DONE]") == 1
        case "openai_responses":
            assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
            assert [f["type"] for f in frames].count("response.created") == 1
            assert frames[-1]["type"] == "response.completed"
            ids = {f["item_id"] for f in frames if f["type"] == "response.output_text.delta"}
            (item,) = frames[-1]["response"]["output"]
            assert ids == {item["id"]}
        case _:
            kinds = [frame["type"] for frame in frames]
            assert (kinds[0], kinds.count("message_start")) == ("message_start", 1)
            assert (kinds[-1], kinds.count("message_stop")) == ("message_stop", 1)
            assert {frame["index"] for frame in frames if "index" in frame} == {0}
            assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


MODELS: dict[str, Any] = {
    "rest": {"turns": rest()},
    **{f"cut{after}": {"turns": cut(after)} for after in range(MOST_FRAMES)},
    "echo": {
        "turns": [
            {
                "when": {"last_assistant_contains": "one two three"},
                "text": TEXT,
                "usage": {"input": 30, "output": 5},
            }
        ]
    },
    "stalls": {"turns": [{"text": TEXT, "stall_after": 4, **PACED}]},
    "garbles": {"turns": [{"text": TEXT, "malformed_after": 4, **PACED}]},
    "ends": {"turns": [{"text": "one two three", "truncate": True, **PACED}]},
    "overloads": {
        "turns": [
            {"text": "one two three", "error": {"message": "busy", "type": "overloaded_error"}, **PACED}
        ]
    },
    "more-then-cut": {
        "turns": [
            {
                "when": {"last_assistant_contains": "one two three"},
                "text": " four five six",
                "cut_after": 2,
                **PACED,
                "usage": {"input": 30, "output": 2},
            }
        ]
    },
    "s500": {"turns": [{"status": 500}]},
    "s400": {"turns": [{"status": 400, "error": {"message": "no prefill", "type": "invalid_request_error"}}]},
    "spaced": {
        "turns": [{"text": "one two \n", "error": {"message": "busy", "type": "overloaded_error"}, **PACED}]
    },
    "after-space": {"turns": [{"when": {"last_assistant_contains": "one two"}, "text": "\n\n three"}]},
    "calls": {
        "turns": [
            {
                "text": "one two three",
                "tool_calls": [{"name": "crm_read", "arguments": {"id": "7"}}],
                "cut_after": 7,
                **PACED,
            }
        ]
    },
    "then-calls": {
        "turns": [
            {
                "when": {"last_assistant_contains": "one two three"},
                "text": " four",
                "tool_calls": [{"name": "crm_read", "arguments": {"id": "7"}}],
                "usage": {"input": 30, "output": 9},
            }
        ]
    },
    "thinks": {"turns": [{"reasoning": "I should count to five.", "text": TEXT, "cut_after": 3, **PACED}]},
    "thought": {"turns": [{"reasoning": THOUGHT, "text": TEXT, "deltas": 1, "cut_after": 3, **PACED}]},
}


@dataclass
class House:
    proxy: ProxyProcess
    scripted: Scripted

    def view(self, agent: Agent) -> CallView:
        return self.proxy.view(agent.tape.call_id)

    def asked(self, model: str) -> dict[str, Any]:
        """The body of the newest request for a model."""
        seen = [seen for seen in self.scripted.seen if seen.model == model]
        return json.loads(bytes(seen[-1].body))


def routes(origin: str) -> dict[str, Any]:
    def chat(*models: str, **more: Any) -> dict[str, Any]:
        return route(*[speaking(CHAT, "", origin, model) for model in models], **more)

    found: dict[str, Any] = {
        f"{SHORT[first]}-{SHORT[second]}": pair(first, second, origin, f"cut{MIDDLE[first]}")
        for first in UPSTREAMS
        for second in UPSTREAMS
    }
    for after in range(MOST_FRAMES):
        found |= {f"{SHORT[first]}-{after}": pair(first, CHAT, origin, f"cut{after}") for first in UPSTREAMS}
    quick = {"timeouts": {"idle_s": 0.3}}
    return found | {
        "off": chat("cut4", "rest", on_cut="error"),
        "unsaid": {k: v for k, v in chat("cut4", "rest").items() if k != "on_cut"},
        "alone": chat("cut4"),
        "echoes": chat("cut4", "echo"),
        "echoes-messages": pair(CHAT, "anthropic_messages", origin, "cut4", "echo"),
        "stalls": chat("stalls", "rest", **quick),
        "garbles": chat("garbles", "rest"),
        "ends": chat("ends", "rest"),
        "overloads": chat("overloads", "rest"),
        "third": chat("cut4", "more-then-cut", "rest"),
        "passes": chat("cut4", "s500", "s400", "rest"),
        "nobody": chat("cut4", "s500"),
        "refused": chat("cut4", "s400"),
        "both-cut": chat("cut4", "more-then-cut"),
        "spaced": pair(CHAT, "anthropic_messages", origin, "spaced", "after-space"),
        "calls": chat("calls", "rest"),
        "then-calls": chat("cut4", "then-calls"),
        "thinks": chat("thinks", "rest"),
        "thought": chat("thought", "rest"),
        "responses-rest": route(speaking("openai_responses", "", origin, "rest")),
        "thinks-messages": pair("anthropic_messages", "anthropic_messages", origin, "cut8"),
    }


@contextlib.asynccontextmanager
async def open_house(folder: Path) -> AsyncGenerator[House]:
    async with running(parse_script(json.dumps({"models": MODELS}))) as scripted:
        settings = config(routes(scripted.anthropic_url), [*MODELS])
        async with ProxyProcess(folder, settings) as proxy:
            yield House(proxy, scripted)


async def streamed(
    house: House, model: str, key: str = KEY, **more: Any
) -> tuple[CallView, str, list[dict[str, Any]]]:
    """The record, the text and the frames of a chat call."""
    body = ask(model=model, stream=True, stream_options={"include_usage": True}, **more)
    async with (
        aiohttp.ClientSession() as http,
        http.post(house.proxy.url, json=body, headers=headers(key, x_run_id="run-3")) as reply,
    ):
        stream = await reply.read()
    frames = told(stream)
    deltas = [choice["delta"] for frame in frames for choice in frame.get("choices", ())]
    await house.proxy.settled()
    return (
        house.proxy.view(reply.headers["x-call-id"]),
        "".join(d.get("content") or "" for d in deltas),
        frames,
    )
