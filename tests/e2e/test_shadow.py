"""A policy in shadow: it judges and records, and no byte of any call is another for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from llm_proxy.records.policy_tables import approvals
from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import AGENTS, FUNCTIONS, UPSTREAMS, Agent, speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, target
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTED_KEY = "sk-counted-0123456789abcdef"
IBAN, CARD, MAIL = "DE89370400440532013000", "4111 1111 1111 1111", "jo@example.com"
CALLS: list[tuple[str, Any]] = [
    ("mail_send", {"to": MAIL, "text": f"card {CARD}"}),
    ("refund", {"order": "4711"}),
    ("crm_read", {"id": 7}),
    ("wire", {"to": "x"}),
]
RULES = [("deny", "prohibited"), ("ask", "tier:human-approval"), ("deny", "schema"), ("deny", "no-approver")]
SCRIPT = f"""
default:
  turns:
    - {{when: {{has_tool_result: true}}, reasoning: Her IBAN is {IBAN}., deltas: 30,
        text: "Ask {MAIL}, {IBAN}, card {CARD}."}}
    - reasoning: I do all at once.
      text: One moment, {MAIL}.
      tool_calls: {json.dumps([{"name": name, "arguments": arguments} for name, arguments in CALLS])}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "watching", "version": 1, "mode": "shadow"},
    "on_deny": "replan",
    "posture": {"unknown_results": "reject"},
    "input": {"max_result_bytes": 200},
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "args": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
        "refund": {"effect": "write", "tier": "human-approval"},
        "wire": {"effect": "write", "tier": "human-approval", "approval": "nobody"},
        "web_search": {"effect": "read", "tier": "prohibited"},
    },
    "approvals": {
        "default": {"approvers": ["group:leads"], "hold_s": 60},
        "nobody": {"approvers": ["group:empty"], "hold_s": 60},
    },
    "redact": [
        {"id": "iban", "in": ["tool_result"], "detect": "iban", "with": "token"},
        {"id": "card", "in": ["tool_args", "tool_result", "reply"], "detect": "card_number", "with": "last4"},
        {"id": "mail", "in": ["reply"], "detect": "email", "with": "mask"},
        {"id": "each", "in": ["reply"], "field": "$.n", "sensitivity": "secret", "with": "mask"},
    ],
    "freeze": {"on": {"denials_per_run": 1}},
}
LEGACY = {"name": "mail_send", "arguments": '{"to": "eve"}'}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    answer: list[Answer]
    http: aiohttp.ClientSession

    async def raw(self, path: str, body: bytes, key: str = KEY, **more: str) -> tuple[int, bytes, str]:
        sent = headers(key, anthropic_version="2023-06-01", **more)
        async with self.http.post(self.proxy.base_url + path, data=body, headers=sent) as reply:
            return reply.status, await reply.read(), reply.headers.get("x-call-id", "")

    async def direct(self, path: str, body: bytes) -> bytes:
        """What the model's server says where nothing stands in between."""
        sent = headers(anthropic_version="2023-06-01")
        async with self.http.post(self.upstream.base_url + path, data=body, headers=sent) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.read()

    def asked(self) -> int:
        with self.proxy.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(approvals)).scalar_one()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    answer: list[Answer] = []
    async with (
        running(parse_script(SCRIPT)) as upstream,
        raw_upstream(lambda _: answer[0]) as raw,
        aiohttp.ClientSession() as http,
    ):
        models: dict[str, Any] = {
            name: {"targets": [speaking(name, name, upstream.origin, name)], "retries": 0}
            for name in UPSTREAMS
        }
        models["raw"] = {"targets": [target("raw", raw.base_url, "raw")], "retries": 0}
        settings = config(
            upstream.base_url,
            models=models,
            default_model="raw",
            unpriced="free",
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "listed": {"keys": [OTHER_KEY], "models": ["*"], "tools": ["refund"]},
                "counted": {"keys": [COUNTED_KEY], "models": ["*"]},
            },
            budgets=[{"id": "gate", "agent": "counted", "window": "run", "tool_calls": 1}],
            operators=[
                {"id": MAIL, "groups": ["leads"], "roles": ["approver"], "token": "a-token-of-twenty-letters"}
            ],
        )
        folder = tmp_path_factory.mktemp("shadow")
        async with ProxyProcess(folder, settings, policy=POLICY) as proxy:
            yield House(proxy, upstream, answer, http)


RESULT = json.dumps({"iban": IBAN, "note": CARD + " " * 200, "n": [f"value {n}" for n in range(2_100)]})
"""Of a call that was never released, larger than the policy takes, with too many values of a field."""
_SCHEMA = {"type": "object"}
_RESULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_chat": (
        "/chat/completions",
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c1", "type": "function", "function": LEGACY}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": RESULT},
            ],
            "stream_options": {"include_usage": True},
            "tools": [{"type": "function", "function": {"name": name}} for name in FUNCTIONS],
            "web_search_options": {},
        },
    ),
    "openai_responses": (
        "/responses",
        {
            "input": [
                {"role": "user", "content": "hi"},
                {"type": "function_call", "call_id": "c1", **LEGACY},
                {"type": "function_call_output", "call_id": "c1", "output": RESULT},
            ],
            "store": False,
            "tools": [
                {"type": "web_search"},
                *({"type": "function", "name": n, "parameters": _SCHEMA} for n in FUNCTIONS),
            ],
        },
    ),
    "anthropic_messages": (
        "/messages",
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "c1", "name": "mail_send", "input": {"to": "x"}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "c1", "content": RESULT}],
                },
            ],
            "max_tokens": 900,
            "tools": [
                {"type": "web_search_20250305", "name": "web_search"},
                *({"name": n, "input_schema": _SCHEMA} for n in FUNCTIONS),
            ],
        },
    ),
}


def _body(dialect: str, *, stream: bool, results: bool) -> tuple[str, bytes]:
    path, more = _RESULTS[dialect]
    body: dict[str, Any] = {"model": dialect, "stream": stream} | more
    if not stream:
        body.pop("stream_options", None)
    if not results:
        key = "input" if "input" in body else "messages"
        body[key] = body[key][:1]
    return path, json.dumps(body).encode()


@pytest.mark.parametrize("results", [False, True], ids=["calls", "results"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", UPSTREAMS)
async def test_no_byte_is_another(house: House, dialect: str, stream: bool, results: bool) -> None:
    path, body = _body(dialect, stream=stream, results=results)
    run = f"bytes-{dialect}-{stream}-{results}"
    status, got, call_id = await house.raw(path, body, x_run_id=run)
    assert (status, house.upstream.seen[-1].body) == (200, body), got
    assert got == await house.direct(path, body)
    view = house.proxy.view(call_id)
    assert view.status is Status.OK
    assert view.sent in (None, body)
    shown = {(one.tool, one.rule, one.shadow) for one in view.withheld}
    assert {("mail_send", "prohibited", True), ("web_search", "prohibited", True)} <= shown
    assert all(one.shadow for one in view.withheld)
    if results:
        (result,) = view.results
        assert (result.known, result.untrusted, result.redacted) == (False, True, {"iban": 1, "card": 1})
        assert result.bytes > 200
        assert stream or MAIL.encode() in got
    else:
        assert [(d.decision, d.rule) for d in view.decisions] == RULES
        assert all(d.shadow and d.released for d in view.decisions)
    assert house.asked() == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_every_sdk_hears_every_call(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    async with kind(house.proxy, upstream, run=f"{kind.dialect}-{upstream}-{stream}") as agent:
        heard = await agent.say("do it", stream=stream)
        assert (heard.text, heard.calls) == (f"One moment, {MAIL}.", CALLS)
        view = house.proxy.view(agent.tape.call_id)
        assert [(d.decision, d.rule, d.shadow) for d in view.decisions] == [(*one, True) for one in RULES]
        assert (len(view.attempts), view.released in (None, agent.tape.bytes)) == (1, True)
        heard = await agent.answer(stream=stream)
        assert heard.text == f"Ask {MAIL}, {IBAN}, card {CARD}."
        assert heard.thought == f"Her IBAN is {IBAN}."
        assert [(one.tool, one.known) for one in house.proxy.view(agent.tape.call_id).results] == [
            (name, True) for name, _ in CALLS
        ]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "x", "model": "raw", "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize("large", [False, True], ids=["small", "5 MB"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_legacy_calls_odd_lines_and_large_calls_pass(house: House, stream: bool, large: bool) -> None:
    call = LEGACY if not large else LEGACY | {"arguments": json.dumps({"to": "x" * (5 << 20)})}
    if stream:
        odd = b": {mail_send}\nx-unknown: {1}\n\n"
        parts = [_chunk({"function_call": call}), odd, _chunk({}, "function_call"), b"data: [DONE]\n\n"]
        house.answer[:] = [events(*parts)]
        expected = b"".join(parts)
    else:
        message = {"role": "assistant", "content": None, "function_call": call}
        choice = {"index": 0, "finish_reason": "function_call", "message": message}
        expected = json.dumps({"id": "x", "model": "raw", "choices": [choice]}).encode()
        house.answer[:] = [whole(expected)]
    body = {"model": "raw", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    status, got, call_id = await house.raw("/chat/completions", json.dumps(body).encode())
    assert (status, got == expected) == (200, True), got[:500]
    (decision,) = house.proxy.view(call_id).decisions
    rule = "bad-args" if large else "prohibited"
    assert (decision.tool, decision.decision, decision.rule, decision.shadow) == (
        "mail_send",
        "deny",
        rule,
        True,
    )


async def test_paths_whose_calls_nobody_sees_pass_unless_the_agents_tools_are_limited(house: House) -> None:
    house.answer[:] = [whole(b'{"id": "batch_1"}')]
    status, got, _ = await house.raw("/batches", b'{"model": "raw"}')
    assert (status, got) == (200, b'{"id": "batch_1"}')
    status, got, _ = await house.raw("/batches", b'{"model": "raw"}', key=OTHER_KEY)
    assert (status, b"whose tools are limited" in got) == (403, True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", UPSTREAMS)
async def test_lists_of_tools_envelopes_and_budgets_hold(house: House, dialect: str, stream: bool) -> None:
    async def rules(key: str, **more: str) -> tuple[list[tuple[str, str, bool]], bytes]:
        path, body = _body(dialect, stream=stream, results=False)
        status, got, call_id = await house.raw(path, body, key, **more)
        assert status == 200, got
        decisions = house.proxy.view(call_id).decisions
        return [(d.tool, d.rule, d.shadow) for d in decisions if not d.released], got

    denied, got = await rules(OTHER_KEY)
    assert denied == [(tool, "agent-tools", False) for tool, _ in CALLS if tool != "refund"]
    assert CARD.encode() not in got
    assert b"refund" in got
    denied, _ = await rules(COUNTED_KEY, x_run_id=f"counted-{dialect}-{stream}")
    assert denied == [(tool, "budget:gate", False) for tool, _ in CALLS[1:]]
    opened = await house.http.post(
        house.proxy.base_url + "/runs",
        json={"purpose": "x", "envelope": {"tools": ["crm_*"]}},
        headers=headers(),
    )
    denied, got = await rules(KEY, x_run_token=(await opened.json())["token"])
    assert denied == [(tool, "envelope", False) for tool, _ in CALLS if tool != "crm_read"]
    assert CARD.encode() not in got
