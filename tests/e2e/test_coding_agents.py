"""Claude Code and Codex as they are, three turns each, unchanged, at vendors of every dialect."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, Seen, running
from llm_proxy.wire.sse import SseFrame, SseReader
from tests.e2e.coding_agents import (
    CLAUDE_HEADERS,
    CLAUDE_TOOLS,
    CODEX_HEADERS,
    THREAD,
    accumulated,
    claude_body,
    claude_opening,
    claude_results,
    codex_body,
    codex_opening,
    codex_results,
    kept,
)
from tests.proxy import ProxyProcess, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODEX_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
VENDORS = ("chat", "responses", "messages")
DIALECTS = {"chat": "openai_chat", "responses": "openai_responses", "messages": "anthropic_messages"}
CLAUDE_MODELS = {"chat": "deepseek-reasoner", "responses": "gpt-5.1", "messages": "claude-sonnet-4-5"}
CODEX_MODELS = {"chat": "deepseek-chat", "responses": "gpt-5.1-codex", "messages": "claude-opus-4-5"}
PATCH = '*** Begin Patch\n*** Update File: src/é.py\n@@\n-print("a")\n+print("b\\n")\n*** End Patch'
USED = {"input": 31_000, "cached": 24_000, "output": 210, "reasoning": 90}


def _script() -> str:
    claude = [
        {
            "when": {"turn": 0},
            "reasoning": "I should read the file and see the tests.",
            "text": "I'll look.",
            "tool_calls": [
                {"name": "Read", "arguments": {"file_path": "/repo/src/é.py"}},
                {"name": "Bash", "arguments": {"command": "pytest -q", "description": "Run tests"}},
            ],
            "usage": USED,
        },
        {
            "when": {"turn": 1, "tool_answered": "Bash"},
            "reasoning": "One line is wrong.",
            "tool_calls": [
                {
                    "name": "Edit",
                    "arguments": {
                        "file_path": "/repo/src/é.py",
                        "old_string": 'print("a")',
                        "new_string": "b",
                    },
                }
            ],
            "usage": USED,
        },
        {"when": {"turn": 2, "tool_answered": "Edit"}, "text": "Fixed: prints b.", "usage": USED},
    ]
    codex = [
        {
            "when": {"turn": 0},
            "reasoning": "First the listing and the owner.",
            "tool_calls": [
                {"name": "shell", "arguments": {"command": ["bash", "-lc", "ls"], "workdir": "/repo"}},
                {"name": "get_owner", "namespace": "crm", "arguments": {"path": "src"}},
            ],
            "usage": USED,
        },
        {
            "when": {"turn": 1, "tool_answered": "shell"},
            "reasoning": "Now the patch.",
            "text": "Patching.",
            "tool_calls": [{"name": "apply_patch", "input": PATCH}],
            "usage": USED,
        },
        {"when": {"turn": 2, "tool_answered": "apply_patch"}, "text": "Patched.", "usage": USED},
    ]
    models: dict[str, Any] = {
        name: {"turns": turns}
        for of, turns in ((CLAUDE_MODELS, claude), (CODEX_MODELS, codex))
        for name in of.values()
    }
    for name in (CLAUDE_MODELS["chat"], CODEX_MODELS["chat"]):
        models[name]["requires_reasoning_content"] = True
    return json.dumps({"models": models})


@dataclass
class House:
    proxy: ProxyProcess
    scripted: Scripted

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        async with (
            aiohttp.ClientSession(skip_auto_headers=["User-Agent"]) as http,
            http.post(self.proxy.origin + path, data=body, headers=headers) as reply,
        ):
            raw = await reply.read()
            assert reply.status == 200, (raw, self.scripted.seen[-1].body[-300:])
            assert reply.content_type == "text/event-stream"
            reader = SseReader()
            return Answer([*reader.feed(raw), *reader.close()], dict(reply.headers), raw)

    def view(self, answer: Answer) -> CallView:
        return self.proxy.view(answer.headers["x-call-id"])

    @property
    def last(self) -> Seen:
        return self.scripted.seen[-1]


@dataclass
class Answer:
    frames: list[SseFrame]
    headers: dict[str, str]
    raw: bytes

    @property
    def dropped(self) -> list[str]:
        return [name for name in self.headers.get("x-dropped-fields", "").split(", ") if name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(_script())) as scripted:
        models: dict[str, Any] = {}
        for agent, of in (("claude", CLAUDE_MODELS), ("codex", CODEX_MODELS)):
            for vendor, model in of.items():
                to = target(f"{agent}-{vendor}", scripted.base_url, model)
                to |= {"dialects": [DIALECTS[vendor]]}
                if vendor == "messages":
                    to = {**to, "provider": "anthropic", "base_url": scripted.origin}
                    del to["dialects"]
                models[f"{agent}-at-{vendor}"] = {"targets": [to], "retries": 0}
        given = config(scripted.base_url, models=models, prices={})
        async with ProxyProcess(tmp_path_factory.mktemp("agents"), given) as proxy:
            yield House(proxy, scripted)


async def test_claude_code_looks_whether_anyone_is_there(house: House) -> None:
    async with aiohttp.ClientSession() as http, http.head(house.proxy.origin + "/") as reply:
        assert reply.status == 200


@pytest.mark.parametrize("vendor", VENDORS)
async def test_claude_code_works_with_a_vendor_of(house: House, vendor: str) -> None:
    model, session = f"claude-at-{vendor}", str(uuid.uuid4())
    headers = CLAUDE_HEADERS | {"x-claude-code-session-id": session}
    messages, said = claude_opening(), list[dict[str, Any]]()
    for turn in range(3):
        body = claude_body(model, messages, session)
        assert len(body) > 100_000
        answer = await house.post("/v1/messages?beta=true", body, headers)
        message = accumulated(answer.frames)
        said.append(message)
        assert answer.headers["x-run-id"] == session
        assert message["usage"]["cache_read_input_tokens"] == USED["cached"]
        assert message["usage"]["input_tokens"] == USED["input"] - USED["cached"]
        assert message["usage"]["output_tokens"] == USED["output"]
        check_claude_upstream(house, vendor, body, answer, turn)
        check_record(house.view(answer), "anthropic_messages", vendor, answer, thinks=turn < 2)
        messages = [*messages, {"role": "assistant", "content": message["content"]}]
        if turn < 2:
            assert message["stop_reason"] == "tool_use"
            messages.append(claude_results(message["content"]))
    calls = [(b["name"], b["input"]) for m in said for b in m["content"] if b["type"] == "tool_use"]
    assert [name for name, _ in calls] == ["Read", "Bash", "Edit"]
    assert calls[2][1] == {"file_path": "/repo/src/é.py", "old_string": 'print("a")', "new_string": "b"}
    assert said[2]["content"][-1] == {"type": "text", "text": "Fixed: prints b."}
    assert said[2]["stop_reason"] == "end_turn"
    assert said[0]["content"][0]["thinking"] == "I should read the file and see the tests."
    assert len(house.proxy.views(run=session)) == 3


def check_claude_upstream(house: House, vendor: str, body: bytes, answer: Answer, turn: int) -> None:
    seen, upstream = house.last, json.loads(house.last.body)
    assert upstream["model"] == CLAUDE_MODELS[vendor]
    if vendor == "messages":
        asked = b'{"model":"claude-at-messages"'
        assert seen.body == body.replace(asked, b'{"model":"claude-sonnet-4-5"', 1)
        assert seen.query == "beta=true"
        assert seen.headers["anthropic-beta"] == CLAUDE_HEADERS["anthropic-beta"]
        assert answer.dropped == []
        return
    assert "anthropic-beta" not in seen.headers
    assert seen.query == ""
    left_out = [
        "tools[31] (web_search_20250305)",
        "tools[32] (code_execution_20250825)",
        "context_management",
    ]
    assert set(left_out) <= set(answer.dropped)
    assert {"metadata.user_id", "cache_control"} <= set(answer.dropped)
    assert ("is_error" in answer.dropped) == (turn > 0)
    assert len(upstream["tools"]) == len(CLAUDE_TOOLS)
    if vendor == "chat":
        assert upstream["stream_options"] == {"include_usage": True}
        thoughts = [m.get("reasoning_content") for m in upstream["messages"] if m["role"] == "assistant"]
        assert thoughts == ["I should read the file and see the tests.", "One line is wrong."][:turn]
    else:
        assert upstream["reasoning"]["effort"] == "xhigh"
        assert sealed(upstream) == issued(house, answer.headers["x-run-id"])


def sealed(upstream: dict[str, Any]) -> list[str]:
    """The encrypted reasoning that a vendor of Responses was sent."""
    return [item["encrypted_content"] for item in upstream["input"] if item["type"] == "reasoning"]


def issued(house: House, run: str) -> list[str]:
    """The encrypted reasoning that it gave in the earlier calls of the run."""
    found: list[str] = []
    for view in house.proxy.views(run=run)[:-1]:
        for frame in SseReader().feed(view.emitted or b""):
            event = json.loads(frame.data)
            if event["type"] == "response.output_item.done" and event["item"]["type"] == "reasoning":
                found.append(event["item"]["encrypted_content"])
    return found


def signatures(house: House, run: str) -> list[str]:
    """The signatures that a vendor of Messages gave in the earlier calls of the run."""
    found: list[str] = []
    for view in house.proxy.views(run=run)[:-1]:
        content = accumulated(SseReader().feed(view.emitted or b""))["content"]
        found += [block["signature"] for block in content if block["type"] == "thinking"]
    return found


def check_record(view: CallView, dialect: str, vendor: str, answer: Answer, *, thinks: bool) -> None:
    translated = DIALECTS[vendor] != dialect
    assert view.status is Status.OK
    assert view.dialect == dialect
    assert view.upstream_dialect == (DIALECTS[vendor] if translated else "")
    assert list(view.dropped) == answer.dropped
    assert view.usage is not None
    assert (view.usage.input, view.usage.cached) == (USED["input"], USED["cached"])
    assert (view.usage.output, view.usage.reasoning) == (USED["output"], USED["reasoning"])
    assert (view.released == answer.raw) if translated else (view.emitted == answer.raw)
    assert view.reply is not None
    (choice,) = view.reply.choices
    assert bool("".join(part.text for part in choice.reasoning)) == thinks


async def test_claude_codes_session_in_the_body_names_the_run(house: House) -> None:
    session = str(uuid.uuid4())
    body = claude_body("claude-at-chat", claude_opening(), session)
    answer = await house.post("/v1/messages?beta=true", body, CLAUDE_HEADERS)
    assert answer.headers["x-run-id"] == session
    view = house.view(answer)
    assert (view.run_id, view.run_inferred, view.user_id) == (session, False, "")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_codex_works_with_a_vendor_of(house: House, vendor: str) -> None:
    model, items, said = f"codex-at-{vendor}", codex_opening(), list[dict[str, Any]]()
    run = str(uuid.uuid4())
    for turn in range(3):
        body = codex_body(model, items).replace(THREAD.encode(), run.encode())
        answer = await house.post("/v1/responses", body, CODEX_HEADERS)
        events = [CODEX_EVENT.validate_json(frame.data) for frame in answer.frames if frame.data]
        done = [event.item.to_dict() for event in events if event.type == "response.output_item.done"]
        assert events[-1].type == "response.completed"
        assert [item.to_dict() for item in events[-1].response.output] == done
        usage = events[-1].response.usage
        assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (
            USED["input"],
            USED["cached"],
        )
        assert (usage.output_tokens, usage.total_tokens) == (USED["output"], USED["input"] + USED["output"])
        assert answer.headers["x-run-id"] == run
        check_codex_upstream(house, vendor, body, answer, turn)
        check_record(house.view(answer), "openai_responses", vendor, answer, thinks=turn < 2)
        said += done
        items = [*items, *map(kept, done), *codex_results(done)]
    shell, owner, patch = [item for item in said if item["type"].endswith("_call")]
    assert json.loads(shell["arguments"]) == {"command": ["bash", "-lc", "ls"], "workdir": "/repo"}
    assert (owner["namespace"], owner["name"]) == ("crm", "get_owner")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "apply_patch", PATCH)
    assert said[-1]["content"][0]["text"] == "Patched."


def check_codex_upstream(house: House, vendor: str, body: bytes, answer: Answer, turn: int) -> None:
    seen, upstream = house.last, json.loads(house.last.body)
    run = answer.headers["x-run-id"]
    if vendor == "responses":
        assert seen.body == body.replace(b'"codex-at-responses"', b'"gpt-5.1-codex"', 1)
        assert sealed(upstream) == issued(house, run)
        assert answer.dropped == []
        return
    assert {"tools[26] (web_search)", "tools[27] (local_shell)"} <= set(answer.dropped)
    names = [tool.get("name") or tool["function"]["name"] for tool in upstream["tools"]]
    assert names[-2:] == ["apply_patch", "crm__get_owner"]
    assert len(names) == 26
    if vendor == "chat":
        thoughts = [m["reasoning_content"] for m in upstream["messages"] if m["role"] == "assistant"]
        assert thoughts == ["First the listing and the owner.", "Now the patch."][:turn]
        assert upstream["parallel_tool_calls"] is False
        assert upstream["prompt_cache_key"] == run
        return
    assert upstream["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    sent_back = [
        block["signature"]
        for message in upstream["messages"]
        for block in message["content"]
        if block["type"] == "thinking"
    ]
    assert sent_back == signatures(house, run)
