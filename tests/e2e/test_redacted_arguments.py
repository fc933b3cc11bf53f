"""Arguments that a redaction wrote anew, through a real proxy: always, judged, and on receipts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.receipts.verify import action_digest
from llm_proxy.records.view import Decision
from tests.e2e.tool_policy_house import Call, body_of
from tests.proxy import ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARD = "4111 1111 1111 1111"
LOOK = Call("call_ok", "look", "{}")
MAIL = Call("call_mail", "look", json.dumps({"text": CARD}))
SPEC: dict[str, Any] = {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}}
POLICY: dict[str, Any] = {
    "policy": {"id": "arguments", "version": 1},
    "on_deny": "replace",
    "destinations": {"kb": {"hosts": ["*.kb.example.com"]}},
    "tools": {
        "look": SPEC,
        "fetch": SPEC | {"check": {"url": "kb"}},
        "charge": SPEC | {"args": {"type": "object", "properties": {"card": {"type": "integer"}}}},
    },
    "redact": [{"id": "card", "in": ["tool_args"], "detect": "card_number", "with": "mask"}],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in POLICY["tools"]
]


@dataclass
class Stage:
    proxy: ProxyProcess
    upstream: RawUpstream
    answer: list[Answer]

    async def model(self, run: str, body: dict[str, Any], *calls: Call) -> tuple[Any, tuple[Decision, ...]]:
        """What the agent gets where the model calls these, and the verdicts."""
        self.answer[:] = [whole(body_of(list(calls)))]
        told = headers(x_run_id=run)
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.proxy.url, json=body, headers=told) as reply,
        ):
            got, id_ = await reply.json(), reply.headers["x-call-id"]
        assert reply.status == 200, got
        return got["choices"][0]["message"], self.proxy.view(id_).decisions


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _body: answer[0]) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url)], "retries": 0}}
        settings = config(upstream.base_url, models=models)
        async with ProxyProcess(tmp_path_factory.mktemp("arguments"), settings, policy=POLICY) as proxy:
            yield Stage(proxy, upstream, answer)


async def test_arguments_are_redacted_whatever_the_request_declares(stage: Stage) -> None:
    await stage.model("bare", ask("do it", tools=TOOLS), LOOK)
    call = {"id": LOOK.id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": LOOK.id, "content": "ok"},
    ]
    got, [decision] = await stage.model("bare", {"model": "m", "messages": messages}, MAIL)
    assert decision.released
    assert CARD not in json.dumps(got)


async def test_a_receipt_fits_the_arguments_that_the_agent_got(stage: Stage) -> None:
    got, _ = await stage.model("fits", ask("do it", tools=TOOLS), MAIL)
    arguments = got["tool_calls"][0]["function"]["arguments"]
    assert CARD not in arguments
    url = f"{stage.proxy.origin}/v1/runs/fits/receipts/{MAIL.id}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers()) as reply:
        receipt = await reply.json()
    assert receipt["digest"] == action_digest("look", arguments)
    assert receipt["digest"] != action_digest("look", MAIL.arguments), "the value can be guessed by it"


async def test_what_would_fail_as_it_is_redacted_is_denied(stage: Stage) -> None:
    host = Call("call_host", "fetch", '{"url": "https://4111111111111111.kb.example.com/"}')
    path = Call("call_path", "fetch", '{"url": "https://a.kb.example.com/4111111111111111"}')
    typed = Call("call_typed", "charge", '{"card": 4111111111111111}')
    got, verdicts = await stage.model("fails", ask("do it", tools=TOOLS), host, path, typed)
    assert [(one.decision, one.rule) for one in verdicts] == [
        ("deny", "redacted-args"),
        ("allow", "tier:autonomous"),
        ("deny", "redacted-args"),
    ]
    assert [one.hits[:1] for one in verdicts] == [("tier:autonomous",), (), ("tier:autonomous",)]
    [released] = got["tool_calls"]
    assert json.loads(released["function"]["arguments"]) == {"url": "https://a.kb.example.com/[redacted]"}
    assert "4111" not in json.dumps(got)
