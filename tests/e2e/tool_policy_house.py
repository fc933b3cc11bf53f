"""Proxies under a tool policy, the calls that a model makes, what an agent hears: shared by its tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, events, raw_upstream, whole

SECRET = "SECRET"
"""Stands in every part of the arguments of a call that is to be denied."""
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "crm_read", "parameters": {"type": "object"}}}]
POLICY: dict[str, Any] = {
    "policy": {"id": "e2e", "version": 1},
    "on_deny": "replace",
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"trust": "internal"},
            "args": {
                "type": "object",
                "required": ["id"],
                "additionalProperties": False,
                "properties": {"id": {"type": "string"}},
            },
        },
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
        "refund": {"effect": "write", "tier": "human-approval"},
        "untiered": {"effect": "read"},
        "web_fetch": {"effect": "read", "tier": "autonomous", "sink": "external"},
    },
    "rules": [
        {"id": "exfil", "then": "deny", "when": 'tool.sink == "external" && run.untrusted', "why": "tainted"}
    ],
}


class Call(NamedTuple):
    id: str
    name: str
    arguments: str


OK = Call("call_ok", "crm_read", '{"id": "7"}')
OK2 = Call("call_ok2", "crm_read", '{ "id":"8" }')
BAD = Call("call_bad", "mail_send", '{"a SECRET": "SECRET", "b SECRET": "SECRET SECRET"}')
BAD2 = Call("call_bad2", "mail_send", '{"SECRET": ["SECRET", "SECRET"]}')

ARRANGEMENTS: dict[str, list[Call]] = {
    "alone": [BAD],
    "first": [BAD, OK, OK2],
    "middle": [OK, BAD, OK2],
    "last": [OK, OK2, BAD],
    "two of three": [BAD, OK, BAD2],
    "both": [BAD, BAD2],
    "same id": [OK._replace(id="call_x"), BAD._replace(id="call_x")],
    "same id, denied first": [BAD._replace(id="call_x"), OK._replace(id="call_x")],
}


def chunk_of(*choices: dict[str, Any], **more: Any) -> bytes:
    top = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
    }
    return b"data: " + json.dumps(top | more).encode() + b"\n\n"


def delta_of(delta: dict[str, Any], choice: int = 0, finish: str | None = None) -> bytes:
    return chunk_of({"index": choice, "delta": delta, "finish_reason": finish})


def part_of(index: int | None, call: Call | None = None, choice: int = 0, **function: str) -> bytes:
    """One piece of a tool call; with `call` it begins one."""
    piece: dict[str, Any] = {} if index is None else {"index": index}
    if call is not None:
        piece |= {"id": call.id, "type": "function"}
    return delta_of({"tool_calls": [piece | {"function": function}]}, choice)


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


ROLE = delta_of({"role": "assistant", "content": None})
USAGE_CHUNK = chunk_of(usage=USAGE)
DONE = b"data: [DONE]\n\n"


def ending(finish: str = "tool_calls") -> list[bytes]:
    return [delta_of({}, finish=finish), USAGE_CHUNK, DONE]


def plain(calls: Sequence[Call]) -> list[bytes]:
    frames = [ROLE]
    for index, call in enumerate(calls):
        frames.append(part_of(index, call, name=call.name, arguments=""))
        frames += [part_of(index, arguments=piece) for piece in halves(call.arguments)]
    return frames + ending()


def body_of(*choices: Sequence[Call], content: str | None = None) -> bytes:
    made = [
        {
            "index": index,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [{"token": SECRET, "logprob": 0}]} if BAD in calls else None,
            "message": {
                "role": "assistant",
                "content": content,
                "tool_calls": [
                    {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                    for c in calls
                ],
            },
        }
        for index, calls in enumerate(choices)
    ]
    top = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": made}
    return json.dumps(top | {"usage": USAGE}).encode()


CUSTOM = {"index": 0, "id": "call_bad", "type": "custom", "custom": {"name": "mail_send", "input": SECRET}}
HIDDEN = {
    "a call where none belongs": chunk_of({"index": 0, "delta": {}, "x": {"tool_calls": [{"f": SECRET}]}}),
    "a key twice": delta_of({"tool_calls": [CUSTOM]}).replace(
        b'"tool_calls"', b'"tool_calls": [], "tool_calls"'
    ),
    "not JSON": b'data: {"choices":[{"delta":{"tool_calls":[{"x":"' + SECRET.encode() + b"\n\n",
    "calls of another type": delta_of({"tool_calls": {"x": SECRET}}),
    "a whole message": chunk_of({"index": 0, "message": {"tool_calls": [CUSTOM]}, "finish_reason": "stop"}),
}


@dataclass
class House:
    """The proxy under `on_deny: replace`, another under `error`; `say` sets what the model answers next."""

    proxies: dict[str, ProxyProcess]
    upstream: RawUpstream
    answer: list[Answer] = field(default_factory=list)

    @property
    def proxy(self) -> ProxyProcess:
        return self.proxies["replace"]

    def say(
        self, calls: Sequence[Call], stream: bool, style: Callable[[Sequence[Call]], list[bytes]] = plain
    ) -> None:
        self.answer[:] = [events(*style(calls)) if stream else whole(body_of(calls))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _body: answer[0]) as upstream:
        names = ["m", *(f"broken-{number}" for number in range(len(HIDDEN)))]
        settings = config(
            upstream.base_url,
            models={name: {"targets": [target(name, upstream.base_url)], "retries": 0} for name in names},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "none": {"keys": [OTHER_KEY], "models": ["m"], "tools": ["kb_*"]},
            },
            budgets=[{"id": "gate", "agent": "bot", "window": "run", "tool_calls": 3, "writes": 1}],
        )
        async with (
            ProxyProcess(tmp_path_factory.mktemp("replace"), settings, policy=POLICY) as replace,
            ProxyProcess(
                tmp_path_factory.mktemp("error"), settings, policy=POLICY | {"on_deny": "error"}
            ) as error,
            ProxyProcess(
                tmp_path_factory.mktemp("shadow"),
                settings,
                policy=POLICY | {"policy": POLICY["policy"] | {"mode": "shadow"}},
            ) as shadow,
        ):
            yield House({"replace": replace, "error": error, "shadow": shadow}, upstream, answer)


async def received(proxy: ProxyProcess, **asked: Any) -> tuple[int, bytes, str]:
    """Everything that a client receives, headers left out, and the call's id."""
    asked = ask("do it", tools=TOOLS) | asked
    async with aiohttp.ClientSession() as http, http.post(proxy.url, json=asked, headers=headers()) as reply:
        return reply.status, await reply.read(), reply.headers["x-call-id"]


@dataclass
class Heard:
    """A choice as an agent built with the SDK puts it together."""

    content: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    finish: str | None = None

    @property
    def tools(self) -> list[tuple[str, ...]]:
        return [tuple(self.calls[index]) for index in sorted(self.calls)]


async def hear(proxy: ProxyProcess, stream: bool, **asked: Any) -> dict[int, Heard]:
    key = asked.pop("key", KEY)
    asked = ask("do it", tools=TOOLS, stream=stream) | asked
    heard: dict[int, Heard] = {}
    async with proxy.sdk(key) as sdk:
        if not stream:
            for choice in (await sdk.chat.completions.create(**asked)).choices:
                calls = [
                    [c.id, c.function.name, c.function.arguments] for c in choice.message.tool_calls or ()
                ]
                heard[choice.index] = Heard(
                    choice.message.content or "", dict(enumerate(calls)), choice.finish_reason
                )
            return heard
        async for chunk in await sdk.chat.completions.create(**asked):
            for choice in chunk.choices:
                one = heard.setdefault(choice.index, Heard())
                one.content += choice.delta.content or ""
                one.finish = choice.finish_reason or one.finish
                for delta in choice.delta.tool_calls or ():
                    call = one.calls.setdefault(delta.index or 0, ["", "", ""])
                    call[0] += delta.id or ""
                    call[1] += delta.function.name or ""
                    call[2] += delta.function.arguments or ""
    return heard
