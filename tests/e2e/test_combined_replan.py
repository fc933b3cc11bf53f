"""Asking the model again, together with what else may happen: redaction, people, failover, two workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import URL

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, Agent, speaking
from tests.proxy import ProxyProcess, config

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"SECRET"
IBAN, CARD, MAIL = "DE89370400440532013000", "4111 1111 1111 1111", "jo@example.com"
TOKEN = "dana-of-the-tests-holds-this-token"
_BAD = "{name: mail_send, arguments: {to: SECRET}}"
_REFUND = '{name: refund, arguments: {order: "4711"}}'
SCRIPT = f"""
models:
  flaky:
    turns:
      - {{when: {{tool_answered: mail_send}}, status: 500}}
      - {{text: One moment., tool_calls: [{_BAD}]}}
  spare:
    turns:
      - {{when: {{tool_answered: mail_send}}, text: The spare can not mail.}}
      - {{status: 500}}
default:
  turns:
    - {{when: {{last_user_contains: thanks}}, text: You are welcome.}}
    - {{when: {{last_user_contains: <beside>, turn: 0}}, text: I do both.,
        tool_calls: [{{name: kb_search, arguments: {{id: "1"}}}}, {{name: crm_read, arguments: {{id: "2"}}}}]
      }}
    - {{when: {{last_tool_contains: {IBAN[:4]}}}, text: Leaked.}}
    - {{when: {{last_tool_contains: tok_}}, text: "Jo is {MAIL}."}}
    - {{when: {{last_user_contains: <mask>, tool_answered: mail_send}}, reasoning: "It is {MAIL}.",
        text: "Then ask {MAIL}.", tool_calls: [{{name: crm_read, arguments: {{id: "{CARD}"}}}}]}}
    - {{when: {{last_user_contains: <mask>}}, text: "I mail {MAIL} now.", tool_calls: [{_BAD}]}}
    - {{when: {{last_user_contains: <once more>, last_tool_contains: NOT EXECUTED}}, text: It waits again.}}
    - {{when: {{last_user_contains: <once more>}}, tool_calls: [{_REFUND}]}}
    - {{when: {{last_tool_contains: found}}, text: Refunded.}}
    - {{when: {{last_user_contains: <again>}}, tool_calls: [{_REFUND}]}}
    - {{when: {{last_user_contains: <refund>, tool_answered: refund}}, text: It waits.}}
    - {{when: {{last_user_contains: <refund>}}, tool_calls: [{_REFUND}]}}
    - {{when: {{tool_answered: mail_send}}, text: I can not mail that.}}
    - {{text: One moment., tool_calls: [{_BAD}]}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "combined", "version": 1},
    "declare": "pass",
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"trust": "internal"},
            "args": {"type": "object"},
        },
        "kb_search": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
        "refund": {"effect": "write", "tier": "human-approval", "result": {"trust": "internal"}},
    },
    "approvals": {"default": {"approvers": ["group:leads"], "hold_s": 0}},
}
MASKING = POLICY | {
    "rules": [
        {"id": "ask-us", "then": "deny", "when": 'tool.name == "kb_search"', "tell_model": f"Ask {MAIL}"}
    ],
    "redact": [
        {"id": "iban", "in": ["tool_result"], "tool": "crm_*", "field": "$.iban", "with": "token"},
        {"id": "card", "in": ["tool_args"], "detect": "card_number", "with": "last4"},
        {"id": "mail", "in": ["reply"], "detect": "email", "with": "mask"},
    ],
}


@dataclass(frozen=True)
class House:
    stores: dict[str, ProxyProcess]
    """Two workers each, over a store of this kind."""
    masking: ProxyProcess
    upstream: Scripted
    admin: aiohttp.ClientSession

    @property
    def proxy(self) -> ProxyProcess:
        return self.stores["sqlite"]

    async def approve(self, run: str) -> str:
        """Says yes to what waits in a run; the approval's id."""
        async with self.admin.get(f"/admin/approvals?run={run}&status=pending") as reply:
            (waiting,) = await reply.json()
        path = f"/admin/approvals/{waiting['id']}/approve"
        async with self.admin.post(path, json={"reason": "checked"}) as reply:
            assert reply.status == 200, await reply.text()
        return waiting["id"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, postgres_server: URL) -> AsyncIterator[House]:
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    folder = tmp_path_factory.mktemp
    async with running(parse_script(SCRIPT)) as upstream:
        models = {d: {"targets": [speaking(d, d, upstream.origin)], "retries": 0} for d in UPSTREAMS}
        for first, second in product(UPSTREAMS, UPSTREAMS):
            pair = f"{first}-{second}"
            targets = [
                speaking(dialect, f"{name}-{pair}", upstream.origin, name)
                for name, dialect in (("flaky", first), ("spare", second))
            ]
            models[pair] = {"targets": targets, "retries": 0}
        operators = [{"id": "dana@example.com", "groups": ["leads"], "roles": ["approver"], "token": TOKEN}]
        settings = config(upstream.base_url, models=models, operators=operators, unpriced="free")
        with fresh_database(postgres_server) as url:
            elsewhere = settings | {"store": url.render_as_string(hide_password=False)}
            async with (
                ProxyProcess(folder("lite"), settings, policy=POLICY, workers=2) as lite,
                ProxyProcess(folder("postgres"), elsewhere, policy=POLICY, workers=2) as postgres,
                ProxyProcess(folder("masking"), settings, policy=MASKING) as masking,
                aiohttp.ClientSession(lite.origin, headers={"authorization": f"Bearer {TOKEN}"}) as admin,
            ):
                yield House({"sqlite": lite, "postgresql": postgres}, masking, upstream, admin)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_redaction_goes_on_where_the_model_is_asked_again(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    proxy = house.masking
    async with kind(proxy, upstream, run=f"{kind.dialect}-{upstream}-{stream}") as agent:
        heard = await agent.say("do it <mask>", stream=stream)
        assert heard.calls == [("crm_read", {"id": "****1111"})]
        assert "".join(heard.text.split()) == "Imail[redacted]now.Thenask[redacted]."
        assert MAIL not in heard.thought
        assert "[redacted]" in heard.thought
        for secret in (SECRET, MAIL.encode(), CARD.encode()):
            assert secret not in agent.tape.bytes
        view = proxy.view(agent.tape.call_id)
        assert [attempt.replan for attempt in view.attempts] == [0, 1]
        assert view.released == agent.tape.bytes
        key = "output" if kind.dialect == "openai_responses" else "content"
        agent.answers[0][key] = json.dumps({"iban": IBAN})
        heard = await agent.answer(stream=stream)
        assert heard.text == "Jo is [redacted]."
        sent = house.upstream.seen[-1].body
        assert IBAN.encode() not in sent
        assert sent.count(b"tok_") == 1
        _check_retold(sent)
        assert sent.count(b"Then ask [redacted].") == 1
        assert sent.count(b"now.") == 1
        (result,) = proxy.view(agent.tape.call_id).results
        assert (result.tool, result.known, result.redacted) == ("crm_read", True, {"iban": 1})


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_note_that_is_masked_goes_out_of_the_text_again(house: House, kind: type[Agent]) -> None:
    async with kind(house.masking, kind.dialect, run=f"beside-{kind.dialect}", think=False) as agent:
        heard = await agent.say("do it <beside>", stream=True)
        assert heard.calls == [("crm_read", {"id": "2"})]
        assert "denied by rule 'ask-us'. Ask [redacted]" in heard.text
        assert (await agent.answer(stream=True)).text == "Refunded."
        sent = house.upstream.seen[-1].body
        assert sent.count(b"denied by rule 'ask-us'") == 1
        assert sent.count(f"Ask {MAIL}".encode()) == 1
        assert b"Ask [redacted]" not in sent


def _check_retold(sent: bytes) -> None:
    """The model is sent its denied call, and what it was told of it."""
    assert sent.count(SECRET) == 1
    assert sent.count(b"denied by rule 'prohibited'") == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_what_waits_is_told_to_the_model_and_goes_through_once_approved(
    house: House, kind: type[Agent], stream: bool
) -> None:
    proxy, run = house.proxy, f"pending-{kind.dialect}-{stream}"
    async with kind(proxy, kind.dialect, run=run, think=False) as agent:
        heard = await agent.say("do it <refund>", stream=stream)
        assert (heard.text, heard.calls) == ("It waits.", [])
        view = proxy.view(agent.tape.call_id)
        assert [(d.rule, d.hits) for d in view.decisions] == [("approval-pending", ("tier:human-approval",))]
        assert b"NOT EXECUTED, waiting for approval apr_" in house.upstream.seen[-1].body
        approval = await house.approve(run)
        heard = await agent.say("and now <again>", stream=stream)
        assert heard.calls == [("refund", {"order": "4711"})]
        assert approval.encode() in house.upstream.seen[-1].body, "the model knows what it was told"
        view = proxy.view(agent.tape.call_id)
        assert [(d.rule, d.approval) for d in view.decisions] == [("approved", approval)]
        assert (await agent.answer(stream=stream)).text == "Refunded."
        heard = await agent.say("and <once more>", stream=stream)
        assert (heard.text, heard.calls) == ("It waits again.", [])
        (waits,) = proxy.view(agent.tape.call_id).decisions
        assert (waits.rule, waits.approval != approval) == ("approval-pending", True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_another_target_answers_the_second_time(
    house: House, kind: type[Agent], first: int, second: int, stream: bool
) -> None:
    """Of any dialect; but what began as its target's bytes goes on in its dialect. 0 is the agent's own."""
    at = UPSTREAMS.index(kind.dialect)
    pair = "-".join([UPSTREAMS[(at + n) % 3] for n in (first, second)])
    run = f"fail-{kind.dialect}-{pair}-{stream}"
    async with kind(house.proxy, pair, run=run, think=False) as agent:
        heard = await agent.say("do it", stream=stream)
        view = house.proxy.view(agent.tape.call_id)
        assert SECRET not in agent.tape.bytes
        assert (view.status, heard.calls) == (Status.OK, [])
        seen = [(a.replan, a.target.partition("-")[0], bool(a.failure)) for a in view.attempts]
        if first == 0 != second:
            assert seen == [(0, "flaky", False), (1, "flaky", True)]
            assert "denied by rule 'prohibited'" in heard.text
            return
        assert seen == [(0, "flaky", False), (1, "flaky", True), (1, "spare", False)]
        assert "".join(heard.text.split()) == "Onemoment.Thesparecannotmail."
        agent.model = kind.dialect
        assert (await agent.say("thanks", stream=stream)).text == "You are welcome."
        _check_retold(house.upstream.seen[-1].body)


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_any_worker_knows_what_the_agent_never_saw(
    house: House, kind: type[Agent], store: str, stream: bool
) -> None:
    proxy = house.stores[store]
    run = f"workers-{kind.dialect}-{stream}"
    async with kind(proxy, kind.dialect, run=run, think=False) as agent:
        heard = await agent.say("do it", stream=stream)
        assert "".join(heard.text.split()) == "Onemoment.Icannotmailthat."
        first, history = proxy.writer_of(agent.tape.call_id), list(agent.history)
    served: set[str] = set()
    for _ in range(40):
        async with kind(proxy, kind.dialect, run=run, think=False) as agent:
            agent.history = list(history)
            assert (await agent.say("thanks", stream=stream)).text == "You are welcome."
            _check_retold(house.upstream.seen[-1].body)
            served.add(proxy.writer_of(agent.tape.call_id))
        if served - {first}:
            break
    assert served - {first}, "the other worker served none"
