"""What a run did before counts: sequences, caps, sums, freezes."""

from __future__ import annotations

import pytest

from llm_proxy.policy.context import Context, DayFacts
from llm_proxy.policy.schema import Effect
from tests.unit.policy_judging import ALLOW, ASK, DENY, NOW, call, context, done, engine, judge, ran

BAN = "sequence: [{id: ban, after: {tool: 'crm_*'}, forbid: {tool: 'web_*'}, then: deny}]\n"
WEB = {"url": "https://api.example.com/"}


def test_bans_count_history_that_was_released() -> None:
    assert judge("web_fetch", WEB, BAN).decision is ALLOW
    for earlier, rule in (
        (done("crm_read", Effect.READ), "ban"),
        (done("crm_read", Effect.READ, completed=False), "ban"),
        (done("crm_read", Effect.READ, decision=DENY, completed=False), "tier:autonomous"),
        (done("crm_read", Effect.READ, decision=DENY), "ban"),
        (done("web_fetch", Effect.READ), "tier:autonomous"),
    ):
        assert judge("web_fetch", WEB, BAN, ran(history=(earlier,))).rule == rule


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_bans_count_siblings_in_any_order(order: tuple[int, int]) -> None:
    calls = [call("crm_read"), call("web_fetch", WEB)]
    verdicts = engine(BAN).decide([calls[n] for n in order], context())
    assert {v.rule: v.decision for v in verdicts} == {"tier:autonomous": ALLOW, "ban": DENY}


NEED = (
    "sequence: [{id: need, before: {effect: irreversible}, "
    "require: {tool: crm_read, within_s: 100}, otherwise: deny}]\n"
)
MAIL = {"to": "a@example.com"}


def test_prerequisites_count_completed_calls_only() -> None:
    assert judge("mail_send", MAIL, NEED).rule == "need"
    assert judge("mail_send", MAIL, NEED, ran(history=(done("crm_read", Effect.READ),))).decision is ALLOW
    late = done("crm_read", Effect.READ, ago=101)
    open_ = done("crm_read", Effect.READ, completed=False)
    assert judge("mail_send", MAIL, NEED, ran(history=(late, open_))).rule == "need"
    verdicts = engine(NEED).decide([call("crm_read"), call("mail_send", MAIL)], context())
    assert [v.rule for v in verdicts] == ["tier:autonomous", "need"]


def test_events_meet_prerequisites() -> None:
    need = (
        "sequence: [{id: e, before: {tool: mail_send}, require: {event: ok, within_s: 10}, otherwise: ask}]\n"
    )
    assert judge("mail_send", MAIL, need).decision is ASK
    assert judge("mail_send", MAIL, need, ran(events={"ok": NOW - 5})).decision is ALLOW
    assert judge("mail_send", MAIL, need, ran(events={"ok": NOW - 11})).decision is ASK


@pytest.mark.parametrize(
    ("cap", "at", "rule"),
    [
        ("run: {calls: 3}", ran(calls=3), "cap:run.calls"),
        ("run: {calls: 3}", ran(calls=2), "tier:pre-approved"),
        ("run: {writes: 1}", ran(writes=1), "cap:run.writes"),
        ("run: {irreversible: 1}", ran(irreversible=1), "cap:run.irreversible"),
        ("day: {calls: 9}", context(day=DayFacts(calls=9)), "cap:day.calls"),
        ("day: {writes: 9}", context(day=DayFacts(writes=9)), "cap:day.writes"),
        ("run: {calls: 0}", context(), "cap:run.calls"),
    ],
)
def test_caps(cap: str, at: Context, rule: str) -> None:
    assert judge("mail_send", MAIL, f"caps: {{{cap}}}\n", at).rule == rule


def test_reads_do_not_use_the_caps_of_writes() -> None:
    full = ran(writes=9, irreversible=9)
    assert judge("crm_read", {}, "caps: {run: {writes: 1, irreversible: 1}}\n", full).decision is ALLOW


def test_earlier_siblings_use_caps() -> None:
    calls = [call("crm_read", {"id": str(n)}) for n in range(4)]
    verdicts = engine("caps: {run: {calls: 5}}\n").decide(calls, ran(calls=3))
    assert [v.decision for v in verdicts] == [ALLOW, ALLOW, DENY, DENY]


def test_identical_calls_are_counted_by_meaning() -> None:
    calls = [
        call("crm_read", '{"id": "1"}'),
        call("crm_read", ' {"\\u0069d":"1"}'),
        call("crm_read", {"id": "2"}),
    ]
    verdicts = engine("caps: {run: {identical_calls: 1}}\n").decide(calls, context())
    assert [v.rule for v in verdicts] == ["tier:autonomous", "cap:run.identical_calls", "tier:autonomous"]
    assert verdicts[0].digest == verdicts[1].digest != verdicts[2].digest


SUMS = "caps: {sums: [{id: day, tool: 'p*', field: pay.amount, per: agent-day, max: 0.3, then: deny}]}\n"


@pytest.mark.parametrize(
    ("amount", "used", "rule"),
    [
        (0.1, 0.2, "tier:human-approval"),
        (0.2, 0.2, "sum:day"),
        (0, 0.3, "tier:human-approval"),
        (-5, 0.0, "sum:day"),
        ("0.1", 0.0, "sum:day"),
        (True, 0.0, "sum:day"),
        (None, 0.0, "sum:day"),
    ],
)
def test_sums_are_exact_and_take_no_negative(amount: object, used: float, rule: str) -> None:
    at = context(sums={"day": used})
    assert judge("pay", {"pay": {"amount": amount}}, SUMS, at).rule == rule


def test_siblings_add_up() -> None:
    verdicts = engine(SUMS).decide([call("pay", {"pay": {"amount": 0.2}})] * 2, context())
    assert [v.decision for v in verdicts] == [ASK, DENY]


def test_denials_freeze_a_run() -> None:
    freeze = "freeze: {on: {denials_per_run: 2}, scope: run}\n"
    refused = done("wipe", Effect.WRITE, decision=DENY, completed=False)
    assert judge("crm_read", {}, freeze, ran(denials=1)).decision is ALLOW
    assert judge("crm_read", {}, freeze, ran(denials=2)).rule == "frozen"
    assert judge("crm_read", {}, freeze, ran(history=(refused, refused))).rule == "frozen"
