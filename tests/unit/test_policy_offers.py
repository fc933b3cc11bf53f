"""Which tools an agent is offered at all, and what the provider may run for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.policy.context import Context
from llm_proxy.policy.offers import Offers, Served, served
from llm_proxy.policy.permitted import Permitted
from llm_proxy.policy.schema import Effect
from tests.unit.policy_judging import BASE, NOW, context, done, engine, ran

HOSTED = """\
  web_search: {effect: read, tier: autonomous, sink: external, result: {trust: untrusted}}
  file_search: {effect: read, tier: human-approval}
  code_interpreter: {effect: write, tier: prohibited}
  web_only: {effect: read, tier: pre-approved, check: {server_url: api}, args: {type: object}}
  mcp__crm: {effect: write, tier: autonomous, check: {server_url: api}}
  mcp__any: {effect: read, tier: autonomous}
  any__ask: {effect: write, tier: human-approval}
  any__free: {effect: read, tier: autonomous}
  any__checked: {effect: read, tier: autonomous, check: {url: api}}
  any__gone: {effect: read, tier: prohibited}
rules:
  - {id: exfil, then: deny, when: 'tool.sink == "external" && run.untrusted'}
sequence:
  - {id: no-search-after, after: {tool: crm_read}, forbid: {tool: web_search}}
"""


def offers(*tools: str, base: str = BASE + HOSTED, role: str = "support", envelope: Any = ()) -> Offers:
    return Offers(engine(base=base).policy, role, Permitted(tools or ("*",), envelope))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("crm_read", None),
        ("mail_send", None),
        ("pay", None),
        ("wipe", "prohibited"),
        ("nowhere", "unknown-tool"),
        ("CRM_READ", "unknown-tool"),
        ("", "bad-args"),
        ("x\n", "bad-args"),
    ],
)
def test_what_is_never_offered(name: str, rule: str | None) -> None:
    reason = offers().never(name)
    assert (reason and reason.rule) == rule


def test_roles_lists_and_envelopes_are_kept_to() -> None:
    of = offers(role="other").never("crm_read")
    assert of is not None
    assert of.rule == "role"
    of = offers("mail_*").never("crm_read")
    assert of is not None
    assert of.rule == "agent-tools"
    of = offers(envelope=(frozenset({"pay"}),)).never("crm_read")
    assert of is not None
    assert of.rule == "envelope"
    of = Offers(None, "", Permitted(("a",))).never("anything")
    assert of is not None
    assert of.rule == "agent-tools"
    assert Offers(None, "", Permitted(("*",))).never("anything") is None


def test_where_unknown_tools_may_pass_they_are_offered() -> None:
    for fallback in ("ask", "allow"):
        base = (BASE + HOSTED).replace("fallback: deny", f"fallback: {fallback}")
        assert offers(base=base).never("nowhere") is None
        assert offers(base=base).family("browser.") is None


def test_a_toolset_is_offered_for_any_of_its_members() -> None:
    reason = offers().family("browser.")
    assert reason is not None
    assert reason.rule == "unknown-tool"
    tools = "  browser.click: {effect: write, tier: prohibited}\n"
    reason = offers(base=BASE + tools).family("browser.")
    assert reason is not None
    assert reason.rule == "prohibited"
    tools += "  browser.look: {effect: read, tier: autonomous}\n"
    assert offers(base=BASE + tools).family("browser.") is None


def rule_of(tool: Served, at: Context | None = None, *, among: tuple[Served, ...] = ()) -> str | None:
    judged = engine(base=BASE + HOSTED)
    found = served(judged, [tool, *among], at or context(), offers())[0]
    return found.rule if found else None


SEARCH = Served("web_search", "{}")


@pytest.mark.parametrize(
    ("tool", "rule"),
    [
        (SEARCH, None),
        (Served("file_search", "{}"), "provider-run"),
        (Served("code_interpreter", "{}"), "prohibited"),
        (Served("image_generation", "{}"), "unknown-tool"),
        (Served("web_only", '{"server_url":"https://api.example.com/x"}'), None),
        (Served("web_only", '{"server_url":"https://evil.example"}'), "provider-run"),
        (Served("mcp__crm", '{"server_url":"https://api.example.com/x"}'), None),
        (Served("mcp__crm", '{"server_url":"https://api.example.com.evil.net"}'), "check:server_url"),
        (Served("mcp__crm", '{"connector_id":"x"}'), "check:server_url"),
        (Served("web_search", '{"a":1,"a":2}'), "bad-args"),
    ],
)
def test_what_the_provider_runs_is_judged_by_its_declaration(tool: Served, rule: str | None) -> None:
    assert rule_of(tool) == rule


def test_what_the_provider_runs_is_judged_as_the_run_stands() -> None:
    assert rule_of(SEARCH, ran(untrusted=True)) == "exfil"
    assert rule_of(SEARCH, ran(history=(done("crm_read", Effect.READ),))) == "no-search-after"
    assert rule_of(SEARCH, among=(Served("crm_read", "{}"),)) == "no-search-after"


@pytest.mark.parametrize(
    ("free", "rule"),
    [
        (("any__free", "any__other"), None),
        ((), None),
        (None, "provider-run"),
        (("any__ask",), "provider-run"),
        (("any__checked",), "provider-run"),
        (("any__gone",), "prohibited"),
    ],
)
def test_a_servers_own_tools_may_not_pass_by_their_entries(free: Any, rule: str | None) -> None:
    assert rule_of(Served("mcp__any", json.dumps({}), "any__", free)) == rule


def test_whatever_the_moment_the_answer_is_one_per_tool() -> None:
    assert context().now_s == NOW
    found = served(engine(base=BASE + HOSTED), [SEARCH] * 3, context(), offers())
    assert found == [None, None, None]
