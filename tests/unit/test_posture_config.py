"""What is amiss in config and policy makes an answer of `posture` no or partly, for its own reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.posture.answers import Verdict
from llm_proxy.posture.questions import posture
from tests.unit.posture_house import Change, answers_to, bot, facts_of


def _pays(policy: dict[str, Any], rule: dict[str, str] | None = None, **more: Any) -> None:
    """A tool that can't be undone, of no tier, and perhaps a rule; what nothing speaks for is denied."""
    policy["posture"]["default"] = "deny"
    policy["tools"]["bank_pay"] = {"effect": "irreversible", "risk": "high", **more}
    if rule is not None:
        policy.setdefault("rules", []).append({"id": "pay", **rule})


def _signs_in(config: dict[str, Any], **more: str) -> None:
    config["server"]["public_url"] = "https://llm.example.com"
    config["oidc"] = {"issuer": "https://login.example.com", "client_id": "console", **more}


def _then(policy: dict[str, Any], step: dict[str, Any]) -> None:
    policy.setdefault("sequence", []).append(step)


def _sums(policy: dict[str, Any], **more: Any) -> None:
    total = {"id": "paid", "tool": "bank_*", "field": "amount", "per": "run", **more}
    policy.setdefault("caps", {}).setdefault("sums", []).append(total)


_BAN = {"id": "after", "after": {"tool": "web_*"}, "forbid": {"tool": "bank_*"}, "then": "ask"}
_BEFORE = {"id": "before", "before": {"tool": "bank_*"}}


CHANGES: dict[str, tuple[str, Verdict, str, Change]] = {
    "no agent": ("identity", Verdict.NO, "no agent is configured", lambda c, p: c.pop("agents")),
    "no owner": ("identity", Verdict.PARTLY, "without an owner: desk-bot", lambda c, p: bot(c, owner="")),
    "no owner of an agent": ("owners", Verdict.PARTLY, "without an owner", lambda c, p: bot(c, owner="")),
    "plain key": (
        "identity",
        Verdict.PARTLY,
        "in plain text: agents.desk-bot.keys[0]",
        lambda c, p: bot(c, keys=["sk-bot-0123456789abcdef"]),
    ),
    "default key": (
        "identity",
        Verdict.PARTLY,
        "in plain text: agents.desk-bot.keys[0]",
        lambda c, p: bot(c, keys=["${NOWHERE:-sk-bot-0123456789abcdef}"]),
    ),
    "no key": (
        "identity",
        Verdict.PARTLY,
        "without a credential: keyless",
        lambda c, p: c["agents"].update(keyless={"owner": "o"}),
    ),
    "every model": ("permissions", Verdict.PARTLY, "every model", lambda c, p: bot(c, models=["*"])),
    "every tool": ("permissions", Verdict.PARTLY, "every tool", lambda c, p: bot(c, tools=["*"])),
    "no role": ("permissions", Verdict.PARTLY, "without a role", lambda c, p: bot(c, role="")),
    "no roles of tools": ("tools", Verdict.PARTLY, "open to every role", lambda c, p: bot(c, tools=["*"])),
    "no risk": (
        "tools",
        Verdict.PARTLY,
        "without a risk of their own: ticket_read",
        lambda c, p: p["tools"]["ticket_read"].pop("risk"),
    ),
    "no environment": (
        "tools",
        Verdict.PARTLY,
        "by default, not by choice",
        lambda c, p: c["server"].pop("environment"),
    ),
    "no policy for tools": ("tools", Verdict.NO, "no policy is in force", lambda c, p: p.clear()),
    "no policy to judge": ("judgement", Verdict.NO, "no policy is in force", lambda c, p: p.clear()),
    "no policy to inspect": ("inspection", Verdict.NO, "no policy is in force", lambda c, p: p.clear()),
    "no policy to own": ("owners", Verdict.NO, "no policy is in force", lambda c, p: p.clear()),
    "no policy to ask": ("approvals", Verdict.NO, "nothing asks a person", lambda c, p: p.clear()),
    "shadow": ("judgement", Verdict.NO, "in shadow", lambda c, p: p["policy"].update(mode="shadow")),
    "fallback": (
        "judgement",
        Verdict.PARTLY,
        "not registered: allow",
        lambda c, p: p["posture"].update(fallback="allow"),
    ),
    "default": (
        "judgement",
        Verdict.PARTLY,
        "speaks for: allow",
        lambda c, p: p["posture"].update(default="allow"),
    ),
    "nobody asked": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: p["tools"].update(
            bank_pay={"effect": "irreversible", "risk": "high", "tier": "autonomous"}
        ),
    ),
    "every model, otherwise written": (
        "permissions",
        Verdict.PARTLY,
        "every model: desk-bot",
        lambda c, p: bot(c, models=["m", "**"]),
    ),
    "every tool, otherwise written": (
        "permissions",
        Verdict.PARTLY,
        "every tool: desk-bot",
        lambda c, p: bot(c, tools=["**"]),
    ),
    "a ban after something else": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: (_pays(p, tier="autonomous"), _then(p, _BAN)),
    ),
    "a call before it": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: (_pays(p, tier="autonomous"), _then(p, _BEFORE | {"require": {"tool": "ticket_read"}})),
    ),
    "a sum that denies what is past it": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: (_pays(p, tier="autonomous"), _sums(p, max=100)),
    ),
    "a rule that allows it": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: _pays(p, {"then": "allow", "when": 'tool.name == "bank_pay"'}),
    ),
    "a rule that allows everything": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: _pays(p, {"then": "allow", "when": 'agent.role == "support"'}),
    ),
    "a rule for all but it": (
        "approvals",
        Verdict.PARTLY,
        "run without anybody asked: bank_pay",
        lambda c, p: _pays(p, {"then": "deny", "when": 'tool.name != "bank_pay"'}, tier="autonomous"),
    ),
    "asked by default, of nobody": (
        "approvals",
        Verdict.PARTLY,
        "approval 'default' is not defined",
        lambda c, p: (_pays(p), p["posture"].update(default="ask"), p["approvals"].pop("default", None)),
    ),
    "shadow of tools": ("tools", Verdict.NO, "in shadow", lambda c, p: p["policy"].update(mode="shadow")),
    "nobody can decide": (
        "approvals",
        Verdict.PARTLY,
        "0 can decide it: nobody; without a token: ann@example.com, ben@example.com",
        lambda c, p: [person.pop("token") for person in c["operators"]],
    ),
    "quorum": (
        "approvals",
        Verdict.PARTLY,
        "approval 'money' takes 3; 2 can decide it",
        lambda c, p: p["approvals"]["money"].update(quorum=3),
    ),
    "no redaction": ("inspection", Verdict.PARTLY, "nothing is redacted", lambda c, p: p.pop("redact")),
    "unmasked": (
        "inspection",
        Verdict.PARTLY,
        "kept in records as they came",
        lambda c, p: c.update(records={"mask_secrets": False}),
    ),
    "no owner of a tool": (
        "owners",
        Verdict.PARTLY,
        "without an owner: ticket_read",
        lambda c, p: p["tools"]["ticket_read"].pop("owner"),
    ),
    "no owner of the policy": (
        "owners",
        Verdict.PARTLY,
        "has no owner",
        lambda c, p: p["policy"].pop("owner"),
    ),
    "no operator": (
        "operators",
        Verdict.PARTLY,
        "no operator has a token",
        lambda c, p: c.pop("operators"),
    ),
    "short token": (
        "operators",
        Verdict.PARTLY,
        "short enough to guess: server.admin_token",
        lambda c, p: c["server"].update(admin_token="hunter2"),
    ),
    "plain token": (
        "operators",
        Verdict.PARTLY,
        "in plain text: server.admin_token",
        lambda c, p: c["server"].update(admin_token="a-token-that-is-long-enough"),
    ),
    "plain secret": (
        "operators",
        Verdict.PARTLY,
        "in plain text: oidc.client_secret",
        lambda c, p: _signs_in(c, client_secret="a-secret-that-is-long-enough"),
    ),
    "no budget": ("budgets", Verdict.NO, "agent desk-bot has no limit", lambda c, p: c.pop("budgets")),
    "a budget that warns": (
        "budgets",
        Verdict.NO,
        "no limit that blocks",
        lambda c, p: c["budgets"][0].update(on_exceed="warn"),
    ),
    "open to all": (
        "exposure",
        Verdict.NO,
        "public_url is not set, and it listens on 0.0.0.0",
        lambda c, p: c["server"].update(host="0.0.0.0"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_amiss_in_the_config_is_named(tmp_path: Path, name: str) -> None:
    id_, verdict, said, change = CHANGES[name]
    facts = facts_of(tmp_path, change)
    answer = answers_to(facts)[id_]
    assert answer.verdict is verdict, answer
    assert any(said in text for text in answer.missing), answer
    assert answer.todo
    assert not posture(facts).ready


HELD: dict[str, Change] = {
    "a person who looked": lambda c, p: _then(p, _BEFORE | {"require": {"event": "checkpoint"}}),
    "a sum that asks": lambda c, p: _sums(p, max=100, then="ask"),
    "a sum without room": lambda c, p: _sums(p, max=0),
    "a rule that asks": lambda c, p: p.setdefault("rules", []).append(
        {"id": "pay", "then": "ask", "when": 'tool.name == "bank_pay"'}
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_a_tool_that_somebody_is_asked_for_is_behind_approval(tmp_path: Path, name: str) -> None:
    def change(config: dict[str, Any], policy: dict[str, Any]) -> None:
        _pays(policy, tier="autonomous")
        HELD[name](config, policy)

    missing = answers_to(facts_of(tmp_path, change))["approvals"].missing
    assert not [text for text in missing if "without anybody asked" in text]
