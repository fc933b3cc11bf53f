"""Each question of `posture`: yes for a sound deployment, and else no or partly, for its own reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import load_config
from llm_proxy.policy.load import load_policy
from llm_proxy.posture.answers import Answer, Verdict
from llm_proxy.posture.facts import (
    Cut,
    Facts,
    KeyFile,
    KeysOf,
    Rebuilt,
    Records,
    Signed,
    ToolCalls,
    Users,
)
from llm_proxy.posture.gathering import plain_secrets
from llm_proxy.posture.questions import QUESTIONS, posture
from llm_proxy.yamlpos import load_yaml

NOW_US = 1_790_000_000_000_000
HASH = "sha256:" + "ab" * 32
STARTERS = Path(__file__).parents[2] / "llm_proxy/config/starter/policies"


def _config() -> dict[str, Any]:
    people = ["ann", "ben"]
    return {
        "server": {"admin_token": HASH, "environment": "prod"},
        "agents": {
            "desk-bot": {
                "owner": "desk@example.com",
                "role": "support",
                "keys": ["sha256:" + "cd" * 32],
                "models": ["m"],
                "tools": ["ticket_*", "customer_*", "order_*", "web_*", "kb_*"],
            }
        },
        "models": {"m": {"targets": [{"id": "t", "provider": "openai", "api_key": "${UPSTREAM}"}]}},
        "budgets": [{"id": "daily", "agent": "*", "window": "day", "usd": 5}],
        "operators": [
            {
                "id": f"{name}@example.com",
                "groups": ["support-leads", "finance"],
                "roles": ["approver"],
                "token": "sha256:" + name.encode().hex() * 10 + "0000",
            }
            for name in people
        ],
        "prices": {"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}},
        "telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"},
    }


def _policy() -> dict[str, Any]:
    """The starter policy of a support desk, whose approvers are the operators above."""
    told: Any = load_yaml(STARTERS / "support-desk.yaml").data
    for entry in told["approvals"].values():
        entry["approvers"] = ["group:support-leads"]
    return told


_RECORDS = Records(
    calls=40,
    newest_us=NOW_US - 5_000_000,
    keys={"desk-bot": KeysOf(active=1)},
    tools=ToolCalls(
        total=10,
        digests=10,
        released=8,
        answered=8,
        results=8,
        verdicts=10,
        judged=10,
        inputs=10,
        changes=3,
        effects=3,
    ),
    users=Users(runs=2, verified=2),
    cut=Cut(agent_id="desk-bot", at_us=NOW_US, streams=1, seconds=0.4),
    signed=Signed(checkpoints=3, newest_us=NOW_US - 30_000_000, unsigned=4, records=90),
)
_REBUILT = Rebuilt(
    run_id="r", agent_id="desk-bot", calls=3, requests=3, replies=3, bytes=900, rows=9, masked=0
)

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def _facts(folder: Path, change: Change | None = None) -> Facts:
    config, policy = _config(), _policy()
    if change is not None:
        change(config, policy)
    if policy:
        policy["tests"] = []
        (folder / "policy.yaml").write_text(json.dumps(policy))
        config["policy"] = str(folder / "policy.yaml")
    path = folder / "proxy.yaml"
    path.write_text(json.dumps(config))
    loaded = load_config(path, {"UPSTREAM": "sk-upstream-0123456789"})
    file = load_policy(loaded.policy) if loaded.policy else None
    return Facts(
        config=loaded,
        policy=file.file if file else None,
        policy_sha256=file.sha256 if file else "",
        plain=plain_secrets(path),
        key_file=KeyFile(path="signing-key.pem", exists=True),
        store="store.db",
        records=_RECORDS,
        rebuilt=_REBUILT,
        now_us=NOW_US,
    )


def _answers(facts: Facts) -> dict[str, Answer]:
    return {answer.id: answer for answer in posture(facts).answers}


def test_a_sound_deployment_is_ready(tmp_path: Path) -> None:
    found = posture(_facts(tmp_path))
    lacking = [(answer.id, answer.missing) for answer in found.answers if answer.missing]
    assert lacking == []
    assert found.ready
    assert [answer.id for answer in found.answers if answer.verdict is Verdict.NOT_APPLICABLE] == ["exposure"]
    assert len({answer.id for answer in found.answers}) == len(QUESTIONS) == 16


def _bot(config: dict[str, Any], **more: Any) -> None:
    config["agents"]["desk-bot"] |= more


def _pays(policy: dict[str, Any], rule: dict[str, str] | None = None, **more: Any) -> None:
    """A tool that can't be undone, of no tier, and perhaps a rule; what nothing speaks for is denied."""
    policy["posture"]["default"] = "deny"
    policy["tools"]["bank_pay"] = {"effect": "irreversible", "risk": "high", **more}
    if rule is not None:
        policy.setdefault("rules", []).append({"id": "pay", **rule})


CHANGES: dict[str, tuple[str, Verdict, str, Change]] = {
    "no agent": ("identity", Verdict.NO, "no agent is configured", lambda c, p: c.pop("agents")),
    "no owner": ("identity", Verdict.PARTLY, "without an owner: desk-bot", lambda c, p: _bot(c, owner="")),
    "no owner of an agent": ("owners", Verdict.PARTLY, "without an owner", lambda c, p: _bot(c, owner="")),
    "plain key": (
        "identity",
        Verdict.PARTLY,
        "in plain text: agents.desk-bot.keys[0]",
        lambda c, p: _bot(c, keys=["sk-bot-0123456789abcdef"]),
    ),
    "default key": (
        "identity",
        Verdict.PARTLY,
        "in plain text: agents.desk-bot.keys[0]",
        lambda c, p: _bot(c, keys=["${NOWHERE:-sk-bot-0123456789abcdef}"]),
    ),
    "no key": (
        "identity",
        Verdict.PARTLY,
        "without a credential: keyless",
        lambda c, p: c["agents"].update(keyless={"owner": "o"}),
    ),
    "every model": ("permissions", Verdict.PARTLY, "every model", lambda c, p: _bot(c, models=["*"])),
    "every tool": ("permissions", Verdict.PARTLY, "every tool", lambda c, p: _bot(c, tools=["*"])),
    "no role": ("permissions", Verdict.PARTLY, "without a role", lambda c, p: _bot(c, role="")),
    "no roles of tools": ("tools", Verdict.PARTLY, "open to every role", lambda c, p: _bot(c, tools=["*"])),
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
    facts = _facts(tmp_path, change)
    answer = _answers(facts)[id_]
    assert answer.verdict is verdict, answer
    assert any(said in text for text in answer.missing), answer
    assert answer.todo
    assert not posture(facts).ready


def _with(**more: Any) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, records=replace(_RECORDS, **more))


def _tools(**more: Any) -> Callable[[Facts], Facts]:
    return _with(tools=replace(_RECORDS.tools, **more))


FIGURES: dict[str, tuple[str, Verdict, str, Callable[[Facts], Facts]]] = {
    "inputs": ("logging", Verdict.PARTLY, "inputs: 9 of 10 (90%)", _tools(digests=9)),
    "kept": ("logging", Verdict.PARTLY, "arguments of 4 of 10 (40%)", _tools(inputs=4)),
    "policies": ("logging", Verdict.PARTLY, "policy: 1 of 10 (10%)", _tools(judged=1)),
    "judged": ("judgement", Verdict.PARTLY, "1 of 10 (10%) recorded verdicts", _tools(judged=1)),
    "outputs": ("logging", Verdict.PARTLY, "outputs: 7 of 8 (87%)", _tools(results=7)),
    "effects": ("logging", Verdict.PARTLY, "side effects: reported for 1 of 3", _tools(effects=1)),
    "nothing": ("logging", Verdict.NOT_APPLICABLE, "", _with(tools=ToolCalls())),
    "users": (
        "permissions",
        Verdict.PARTLY,
        "named the user in 1 of 2",
        _with(users=Users(runs=2, verified=1)),
    ),
    "unmeasured": ("authority", Verdict.NO, "not measured", _with(cut=None)),
    "slow": (
        "authority",
        Verdict.NO,
        "7.00 s",
        _with(cut=replace(_RECORDS.cut or Cut(agent_id="", at_us=0, streams=0, seconds=0), seconds=7.0)),
    ),
    "unsigned": ("proof", Verdict.PARTLY, "no checkpoint was ever signed", _with(signed=Signed(records=9))),
    "late": (
        "proof",
        Verdict.PARTLY,
        "4 records since",
        _with(signed=replace(_RECORDS.signed, newest_us=NOW_US - 7_200_000_000)),
    ),
    "lag": (
        "export",
        Verdict.PARTLY,
        "the oldest for 900 s",
        _with(unsent=8, oldest_unsent_us=NOW_US - 900_000_000),
    ),
    "refused": ("export", Verdict.PARTLY, "3 spans were refused", _with(dead_letters=3)),
    "not rebuilt": (
        "reconstruction",
        Verdict.NO,
        "call c: its reply is no longer kept",
        lambda facts: replace(
            facts, rebuilt=replace(_REBUILT, problems=("call c: its reply is no longer kept",))
        ),
    ),
    "nothing to rebuild": (
        "reconstruction",
        Verdict.NOT_APPLICABLE,
        "",
        lambda facts: replace(facts, rebuilt=None),
    ),
    "store": (
        "durability",
        Verdict.NO,
        "can't be used: it is away",
        lambda facts: replace(facts, store_problem="it is away"),
    ),
    "open key": (
        "proof",
        Verdict.PARTLY,
        "can be read by others",
        lambda facts: replace(facts, key_file=KeyFile(path="k.pem", exists=True, open_to_others=True)),
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_amiss_in_the_records_is_named(tmp_path: Path, name: str) -> None:
    id_, verdict, said, change = FIGURES[name]
    answer = _answers(change(_facts(tmp_path)))[id_]
    assert answer.verdict is verdict, answer
    assert any(said in text for text in answer.missing) == bool(said), answer


def test_no_secret_stands_in_the_report(tmp_path: Path) -> None:
    def careless(config: dict[str, Any], policy: dict[str, Any]) -> None:
        _bot(config, keys=["sk-bot-0123456789abcdef"])
        config["server"]["admin_token"] = "hunter2"

    facts = _facts(tmp_path, careless)
    assert facts.plain == ("server.admin_token", "agents.desk-bot.keys[0]")
    said = str(posture(facts))
    assert "0123456789abcdef" not in said
    assert "hunter2" not in said
