"""Agents of three dialects, each on its official SDK: a conversation with tools, and every byte of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anthropic
import httpx
import httpx2
import openai

from tests.proxy import KEY, ProxyProcess

PARAMETERS = {"type": "object", "properties": {"id": {"type": "string"}}}
FUNCTIONS = ("crm_read", "kb_search", "mail_send", "mail_draft", "refund", "wire")
CUSTOM = ("scratch", "shell_run")
_FREE = {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}}
JUDGED: dict[str, Any] = {
    "crm_read": _FREE,
    "kb_search": _FREE,
    "mail_send": {"effect": "irreversible", "tier": "prohibited"},
}
"""Three of them as policies have them: two may run, and one never may."""


@dataclass(frozen=True)
class Heard:
    """A reply as the SDK puts it together. A call is a tool and its arguments, decoded from JSON."""

    text: str
    calls: list[tuple[str, Any]]
    stop: str | None
    thought: str = ""


class _Taped(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A response's body that is kept while the SDK reads it."""

    def __init__(self, inner: Any, got: bytearray) -> None:
        self._inner = inner
        self._got = got

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._got.extend(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Tape:
    """The body of the newest response, headers and call id with it."""

    got: bytearray = field(default_factory=bytearray)
    headers: Any = None

    async def hook(self, response: Any) -> None:
        self.got.clear()
        self.headers = response.headers
        response.stream = _Taped(response.stream, self.got)

    @property
    def bytes(self) -> bytes:
        return bytes(self.got)

    @property
    def call_id(self) -> str:
        return self.headers["x-call-id"]


class Agent:
    """One conversation of one run, which `say` and `answer` carry on; an empty `run` names none."""

    dialect = ""
    ends: tuple[str | None, str | None] = (None, None)
    """The stop reason of a reply without calls, and of one with."""

    def __init__(
        self, proxy: ProxyProcess, model: str, *, run: str, key: str = KEY, think: bool = True
    ) -> None:
        self.model = model
        self.think = think
        self.custom = False
        self.tape = Tape()
        self.history: list[Any] = []
        self.answers: list[Any] = []
        """What is to be sent for the newest reply's calls."""
        self._open(proxy, key, {"x-run-id": run} if run else {})

    def _open(self, proxy: ProxyProcess, key: str, headers: dict[str, str]) -> None:
        hooks: Any = {"response": [self.tape.hook]}
        self.http: Any = httpx.AsyncClient(event_hooks=hooks)
        self.sdk: Any = openai.AsyncOpenAI(
            base_url=proxy.base_url,
            api_key=key,
            max_retries=0,
            default_headers=headers,
            http_client=self.http,
        )

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.sdk.close()

    async def say(self, text: str, *, stream: bool) -> Heard:
        self.history.append({"role": "user", "content": text})
        return await self._ask(stream)

    async def answer(self, *, stream: bool) -> Heard:
        """Sends a result for each call of the newest reply."""
        assert self.answers
        self._give(self.answers)
        return await self._ask(stream)

    def _give(self, answers: list[Any]) -> None:
        self.history += answers

    async def _ask(self, stream: bool) -> Heard:
        raise NotImplementedError


class ChatAgent(Agent):
    dialect = "openai_chat"
    ends = ("stop", "tool_calls")

    async def _ask(self, stream: bool) -> Heard:
        tools = [
            {"type": "function", "function": {"name": name, "parameters": PARAMETERS, "strict": True}}
            for name in FUNCTIONS
        ]
        asked: dict[str, Any] = {"model": self.model, "messages": self.history, "tools": tools}
        if self.think:
            asked["reasoning_effort"] = "medium"
        if stream:
            async with self.sdk.chat.completions.stream(**asked) as events:
                async for _ in events:
                    pass
                reply = await events.get_final_completion()
        else:
            reply = await self.sdk.chat.completions.create(**asked)
        (choice,) = reply.choices
        message, calls = choice.message, choice.message.tool_calls or []
        told = message.model_dump(exclude_none=True, exclude={"parsed"})
        for call in told.get("tool_calls", []):
            call["function"].pop("parsed_arguments", None)
            call.pop("index", None)
        self.history.append(told)
        self.answers = [{"role": "tool", "tool_call_id": c.id, "content": "found"} for c in calls]
        return Heard(
            message.content or "",
            [(call.function.name, json.loads(call.function.arguments)) for call in calls],
            choice.finish_reason,
            getattr(message, "reasoning_content", None) or "",
        )


class ResponsesAgent(Agent):
    dialect = "openai_responses"
    ends = ("completed", "completed")

    async def _ask(self, stream: bool) -> Heard:
        tools: list[dict[str, Any]] = [
            {"type": "function", "name": name, "parameters": PARAMETERS, "strict": False}
            for name in FUNCTIONS
        ]
        if self.custom:
            tools += [{"type": "custom", "name": name} for name in CUSTOM]
        asked: dict[str, Any] = {"model": self.model, "input": self.history, "tools": tools, "store": False}
        if self.think:
            asked |= {"reasoning": {"effort": "medium", "summary": "auto"}}
            asked |= {"include": ["reasoning.encrypted_content"]}
        if stream:
            async with self.sdk.responses.stream(**asked) as events:
                async for _ in events:
                    pass
                reply = await events.get_final_response()
        else:
            reply = await self.sdk.responses.create(**asked)
        self.history += [i.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for i in reply.output]
        functions = [item for item in reply.output if item.type == "function_call"]
        custom = [item for item in reply.output if item.type == "custom_tool_call"]
        self.answers = [
            *({"type": "function_call_output", "call_id": c.call_id, "output": "found"} for c in functions),
            *({"type": "custom_tool_call_output", "call_id": c.call_id, "output": "found"} for c in custom),
        ]
        thoughts = [[*i.summary, *(i.content or ())] for i in reply.output if i.type == "reasoning"]
        return Heard(
            reply.output_text,
            [(c.name, json.loads(c.arguments)) for c in functions] + [(c.name, c.input) for c in custom],
            reply.status,
            "".join(part.text for parts in thoughts for part in parts),
        )


class MessagesAgent(Agent):
    dialect = "anthropic_messages"
    ends = ("end_turn", "tool_use")

    def _open(self, proxy: ProxyProcess, key: str, headers: dict[str, str]) -> None:
        hooks: Any = {"response": [self.tape.hook]}
        self.http = httpx2.AsyncClient(event_hooks=hooks)
        self.sdk = anthropic.AsyncAnthropic(
            base_url=proxy.origin, api_key=key, max_retries=0, default_headers=headers, http_client=self.http
        )

    async def _ask(self, stream: bool) -> Heard:
        tools = [{"name": name, "input_schema": PARAMETERS} for name in FUNCTIONS]
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": self.history,
            "tools": tools,
            "max_tokens": 4000,
        }
        if self.think:
            asked["thinking"] = {"type": "enabled", "budget_tokens": 2000}
        if stream:
            async with self.sdk.messages.stream(**asked) as events:
                async for _ in events:
                    pass
                reply = await events.get_final_message()
        else:
            reply = await self.sdk.messages.create(**asked)
        self.history.append({"role": "assistant", "content": [block.to_dict() for block in reply.content]})
        calls = [block for block in reply.content if block.type == "tool_use"]
        self.answers = [{"type": "tool_result", "tool_use_id": c.id, "content": "found"} for c in calls]
        return Heard(
            "\n\n".join(block.text for block in reply.content if block.type == "text"),
            [(call.name, call.input) for call in calls],
            reply.stop_reason,
            "".join(block.thinking for block in reply.content if block.type == "thinking"),
        )

    def _give(self, answers: list[Any]) -> None:
        self.history.append({"role": "user", "content": answers})


AGENTS = (ChatAgent, ResponsesAgent, MessagesAgent)
UPSTREAMS = ("openai_chat", "openai_responses", "anthropic_messages")


def speaking(dialect: str, id_: str, origin: str, model: str = "m") -> dict[str, Any]:
    """A target that speaks one dialect alone; `origin` without `/v1`."""
    at = {"id": id_, "model": model, "api_key": "sk-upstream"}
    if dialect == "anthropic_messages":
        return at | {"provider": "anthropic", "base_url": origin}
    return at | {"provider": "openai", "base_url": origin + "/v1", "dialects": [dialect]}


def each_speaking(origin: str, dialects: Iterable[str] = UPSTREAMS) -> dict[str, Any]:
    """A model for each dialect, by its name, with one target that speaks it alone."""
    return {id_: {"targets": [speaking(id_, id_, origin)], "retries": 0} for id_ in dialects}
