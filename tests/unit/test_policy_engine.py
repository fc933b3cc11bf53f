"""The order of judgement, one step at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llm_proxy.policy.context import AgentFacts, UserFacts
from llm_proxy.policy.engine import MAX_CALLS
from llm_proxy.policy.schema import Decision, Effect
from llm_proxy.policy.verdict import without_approver
from tests.unit.policy_judging import ALLOW, ASK, BASE, DENY, call, context, done, engine, judge, ran


@pytest.mark.parametrize(
    ("tool", "args", "decision", "rule"),
    [
        ("crm_read", {"id": "7"}, ALLOW, "tier:autonomous"),
        ("crm_read", '{"id": 1e999}', DENY, "bad-args"),
        ("crm_read", "[]", DENY, "bad-args"),
        ("crm_read", "", ALLOW, "tier:autonomous"),
        ("CRM_read", {}, DENY, "unknown-tool"),
        ("crm_read ", {}, DENY, "unknown-tool"),
        ("crm_rea\u0501", {}, DENY, "unknown-tool"),
        ("crm_read\0", {}, DENY, "bad-args"),
        ("", {}, DENY, "bad-args"),
        ("x" * 257, {}, DENY, "bad-args"),
        ("\ud800", {}, DENY, "bad-args"),
        ("crm_read", {"id": "123456789"}, DENY, "schema"),
        ("crm_read", {"other": 1}, DENY, "schema"),
        ("web_fetch", {"url": "https://api.example.com/"}, ALLOW, "tier:autonomous"),
        ("web_fetch", {"url": "https://evil.com/"}, DENY, "check:url"),
        ("web_fetch", {}, DENY, "check:url"),
        ("mail_send", {"to": "a@example.com"}, ALLOW, "tier:pre-approved"),
        ("mail_send", {"to": "a@evil.com"}, ASK, "check:to"),
        ("mail_send", {}, ASK, "check:to"),
        ("note_add", {}, ASK, "tier:pre-approved"),
        ("pay", {}, ASK, "tier:human-approval"),
        ("wipe", {}, DENY, "prohibited"),
        ("repo_read", {"repo": "acme/web"}, ALLOW, "tier:autonomous"),
        ("repo_read", {"repo": "acme/api"}, DENY, "check:repo"),
        ("plain", {}, ASK, "posture"),
    ],
)
def test_built_in_rules(tool: str, args: object, decision: Decision, rule: str) -> None:
    verdict = judge(tool, args)
    assert (verdict.decision, verdict.rule) == (decision, rule)


def test_no_value_is_quoted() -> None:
    for tool, args in (("crm_read", {"id": "s3cret-s3cret"}), ("web_fetch", {"url": "s3cret"})):
        verdict = judge(tool, args)
        assert "s3cret" not in verdict.why + verdict.tell_model


def test_roles_and_permissions() -> None:
    other = context(agent=AgentFacts("bot", role="billing"))
    assert judge("crm_read", at=other).rule == "role"
    narrow = context(agent=AgentFacts("bot", role="support", tools=("web_*", "pay")))
    assert judge("crm_read", at=narrow).rule == "agent-tools"
    assert judge("pay", at=narrow).rule == "tier:human-approval"
    assert judge("wipe", at=narrow).hits == ("agent-tools",)


@pytest.mark.parametrize(("fallback", "decision"), [("allow", ALLOW), ("ask", ASK), ("deny", DENY)])
def test_unknown_tools_take_the_fallback(fallback: str, decision: Decision) -> None:
    base = BASE.replace("fallback: deny", f"fallback: {fallback}")
    verdict = engine(base=base).decide([call("nope")], context())[0]
    assert (verdict.decision, verdict.rule, verdict.effect) == (decision, "unknown-tool", Effect.IRREVERSIBLE)


def test_rules_see_an_unknown_tool_as_the_worst() -> None:
    base = BASE.replace("fallback: deny", "fallback: allow")
    rule = (
        'rules: [{id: r, then: deny, when: \'!tool.registered && tool.sink == "external" && '
        'tool.effect == "irreversible" && tool.clearance == 0\'}]\n'
    )
    assert engine(rule, base).decide([call("nope")], context())[0].rule == "r"


@pytest.mark.parametrize(("default", "decision"), [("allow", ALLOW), ("ask", ASK), ("deny", DENY)])
def test_posture_answers_where_nothing_spoke(default: str, decision: Decision) -> None:
    base = BASE.replace("default: ask", f"default: {default}")
    verdict = engine(base=base).decide([call("plain")], context())[0]
    assert (verdict.decision, verdict.rule) == (decision, "posture")
    spoken = engine("rules: [{id: ok, then: allow, when: 'true'}]\n", base).decide(
        [call("plain")], context()
    )[0]
    assert (spoken.decision, spoken.rule) == (ALLOW, "ok")


RULES = """\
rules:
  - {id: ask-all, then: ask, when: 'tool.effect != "read"', tell_model: Ask first}
  - {id: exfil, then: deny, when: 'tool.sink == "external" && run.sensitivity > tool.clearance', why: Leaks}
  - {id: fine, then: allow, when: 'true'}
"""


def test_the_strictest_decides_and_the_others_are_named() -> None:
    verdict = judge("mail_send", {"to": "a@evil.com"}, RULES, ran(sensitivity=3))
    assert (verdict.decision, verdict.rule, verdict.why) == (DENY, "exfil", "Leaks")
    assert verdict.hits == ("check:to", "ask-all", "fine")
    assert judge("pay", {}, RULES).rule == "ask-all"
    assert judge("crm_read", {}, RULES).rule == "fine"


def test_an_allow_rule_never_loosens_a_tier() -> None:
    allow = "rules: [{id: ok, then: allow, when: 'true'}]\n"
    assert judge("pay", {}, allow).decision is ASK
    assert judge("wipe", {}, allow).decision is DENY


@pytest.mark.parametrize(
    "when",
    [
        "args.none == 1",
        'args.id > "a" && args.id > 1',
        "args.id.all(x, true)",
        "args.id + 1 > 0",
    ],
)
def test_a_rule_that_fails_denies(when: str) -> None:
    verdict = judge("crm_read", {"id": "x"}, f"rules: [{{id: bad, then: allow, when: '{when}'}}]\n")
    assert (verdict.decision, verdict.rule, verdict.hits) == (DENY, "rule-error", ("bad",))
    assert "bad" in verdict.why


def test_running_out_of_iterations_denies() -> None:
    many = " && ".join(["args.l.all(x, x >= 0)"] * 20)
    rule = f"rules: [{{id: slow, then: ask, when: '{many}'}}]\n"
    verdict = judge("web_fetch", {"url": "https://api.example.com", "l": list(range(900))}, rule)
    assert (verdict.decision, verdict.rule, verdict.hits) == (DENY, "rule-error", ("slow",))


def test_an_engine_failure_denies_every_call() -> None:
    def fail() -> str:
        raise OSError("store is down")

    extra = "rules: [{id: r, then: ask, when: '!call.identity_from_user'}]\n"
    calls = [call("crm_read"), call("mail_send", {"to": "a@example.com"})]
    verdicts = engine(extra).decide(calls, context(user_text=fail))
    assert [(v.decision, v.rule) for v in verdicts] == [(DENY, "rule-error")] * 2
    assert all("OSError" in v.why for v in verdicts)


def test_too_many_calls_are_denied_unread() -> None:
    verdicts = engine().decide([call("crm_read")] * (MAX_CALLS + 1), context())
    assert {(v.decision, v.rule) for v in verdicts} == {(DENY, "bad-args")}
    assert len(verdicts) == MAX_CALLS + 1


def test_identity_comes_from_the_user() -> None:
    extra = "rules: [{id: who, then: ask, when: '!call.identity_from_user'}]\n"
    asked = context(user_text=lambda: "write to Ann@example.com")
    assert judge("mail_send", {"to": "ann@example.com"}, extra, asked).decision is ALLOW
    assert judge("mail_send", {"to": "eve@example.com"}, extra, asked).rule == "who"
    assert judge("crm_read", {}, extra, asked).decision is ALLOW
    assert judge("pay", {}, extra, asked).rule == "who"


def test_user_text_is_read_once_and_only_where_needed() -> None:
    reads: list[int] = []

    def text() -> str:
        reads.append(1)
        return "ann@example.com"

    mail = call("mail_send", {"to": "ann@example.com"})
    engine().decide([mail, mail], context(user_text=text))
    assert reads == []
    engine("rules: [{id: who, then: ask, when: '!call.identity_from_user'}]\n").decide(
        [mail, mail], context(user_text=text)
    )
    assert reads == [1]


FACTS = {
    "agent.id": ('"bot"', "agent.id"),
    "scopes": ('"acme/web"', "agent.scopes.repos[0]"),
    "clearance": ("label.secret", "user.clearance"),
    "user": ('"u\ufffd1"', "user.id"),
    "age": ("60", "run.age_s"),
    "labels": ('["pii"]', "run.labels"),
    "env": ('"prod"', "env"),
    "now": ('timestamp("2023-11-14T22:13:20Z")', "now"),
    "tool": ('"crm_read"', "tool.name"),
    "tier": ('"autonomous"', "tool.tier"),
    "roles": ('["support"]', "tool.roles"),
    "rank": ("label.confidential", "tool.sensitivity"),
    "siblings": ("0", "call.siblings"),
    "repeated": ("2", "call.repeated"),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_reach_the_rules(name: str) -> None:
    value, variable = FACTS[name]
    at = replace(
        ran(
            labels=frozenset({"pii"}), history=(done("crm_read", Effect.READ), done("crm_read", Effect.READ))
        ),
        user=UserFacts("u\x001", clearance="secret", verified=True),
        env="prod",
    )
    assert (
        judge("crm_read", {}, f"rules:\n  - {{id: r, then: deny, when: '{variable} == {value}'}}\n", at).rule
        == "r"
    )


def test_an_unverified_user_has_the_lowest_clearance() -> None:
    rule = "rules: [{id: r, then: deny, when: 'user.clearance > label.public'}]\n"
    for user, denied in (
        (UserFacts(clearance="secret"), False),
        (UserFacts(clearance="secret", verified=True), True),
        (UserFacts(clearance="cosmic", verified=True), False),
    ):
        assert (judge("crm_read", {}, rule, context(user=user)).decision is DENY) is denied


def test_without_an_approver_an_ask_denies() -> None:
    asked = judge("pay")
    denied = without_approver(asked)
    assert (denied.decision, denied.rule, denied.hits) == (DENY, "no-approver", ("tier:human-approval",))
    assert denied.digest == asked.digest
    allowed = judge("crm_read")
    assert without_approver(allowed) is allowed


@pytest.mark.parametrize(
    ("tool", "known", "expected"),
    [
        ("crm_read", True, (2, False, False)),
        ("web_fetch", True, (0, True, False)),
        ("pay", True, (0, True, False)),
        ("nope", True, (2, True, False)),
        ("crm_read", False, (2, True, False)),
        (None, False, (2, True, False)),
    ],
)
def test_result_labels(tool: str | None, known: bool, expected: tuple[int, bool, bool]) -> None:
    label = engine().result_label(tool, known)
    assert (label.sensitivity, label.untrusted, label.rejected) == expected


def test_unknown_results_can_be_rejected() -> None:
    judge_ = engine(base=BASE.replace("fallback: deny", "fallback: deny, unknown_results: reject"))
    assert judge_.result_label("crm_read", False).rejected
    assert not judge_.result_label("nope", True).rejected
