"""Trying another policy on the record: what would change, by which rule; caps by day and sums in order."""

from __future__ import annotations

from dataclasses import replace

from llm_proxy.policy.again import Again
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.explain import explained
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.past import Judged, word
from llm_proxy.policy.simulate import Compared, Comparison, simulated
from llm_proxy.policy.vocabulary import Decision
from llm_proxy.records.judged import Judged as Facts
from llm_proxy.records.view import Decision as Recorded
from tests.unit.recorded_runs import MadePast, Proxy

OPEN = """
policy: {id: open, version: 1}
tools:
  read: {effect: read, tier: autonomous, result: {trust: internal}}
  web: {effect: read, tier: autonomous, sink: external, result: {trust: untrusted}}
  pay: {effect: write, tier: autonomous}
"""


def proxy_under(policy: str = OPEN) -> Proxy:
    return Proxy(PolicyEngine(read_policy(policy.encode(), "p.yaml")))


def tried(proxy: Proxy, policy: str, since_us: int = 0) -> Compared:
    engine = PolicyEngine(read_policy(policy.encode(), "p.yaml"))
    into = Comparison(engine.policy.file, 100)
    for _ in simulated(proxy.events, Again(engine, MadePast(proxy)), into, since_us):
        pass
    return into.result()


def changes(found: Compared) -> list[tuple[str, str, str, str]]:
    return [(one.tool, one.was, one.now, one.now_rule) for one in found.changes]


def test_labels_are_those_of_the_other_registry() -> None:
    proxy = proxy_under()
    proxy.reply("r", [("read", {})])
    proxy.results("r", 1)
    proxy.reply("r", [("web", {})])
    closed = OPEN.replace("result: {trust: internal}", "result: {sensitivity: secret, trust: internal}")
    closed += (
        "rules: [{id: exfil, then: deny, "
        "when: 'tool.sink == \"external\" && run.sensitivity > tool.clearance'}]\n"
    )
    assert changes(tried(proxy, closed)) == [("web", "allow", "deny", "exfil")]
    assert tried(proxy, closed).never_hit == ()
    assert tried(proxy, OPEN).changed == 0


def test_a_run_goes_as_it_was_recorded_to_go() -> None:
    """What the other policy would deny was done all the same, and what follows goes by that."""
    proxy = proxy_under()
    for _ in range(3):
        proxy.reply("r", [("pay", {})])
        proxy.results("r", 1)
    assert (
        changes(tried(proxy, OPEN + "caps: {run: {writes: 1}}\n"))
        == [("pay", "allow", "deny", "cap:run.writes")] * 2
    )


def test_caps_by_day_are_counted_over_runs_and_end_with_the_day() -> None:
    proxy = proxy_under()
    for run in ("a", "b", "c"):
        proxy.reply(run, [("pay", {}), ("read", {})])
    proxy.now_us += 86_400_000_000
    proxy.reply("d", [("pay", {})])
    found = tried(proxy, OPEN + "caps: {day: {writes: 2}}\n")
    assert [(one.run_id, one.tool, one.now_rule) for one in found.changes] == [("c", "pay", "cap:day.writes")]
    assert found.runs == 4


def test_what_would_be_denied_uses_up_no_cap() -> None:
    proxy = proxy_under()
    for amount in (400, 400, 400, 100):
        proxy.reply(f"r{amount}{proxy.now_us}", [("pay", {"amount": amount})])
    sums = "caps: {sums: [{id: s, tool: pay, field: amount, per: agent-day, max: 900, then: deny}]}\n"
    found = tried(proxy, OPEN + sums)
    assert [one.call_id for one in found.changes] == ["call-2"]
    assert changes(found) == [("pay", "allow", "deny", "sum:s")]


def test_a_sum_over_a_run_begins_with_the_run() -> None:
    proxy = proxy_under()
    for _ in range(3):
        proxy.reply("r", [("pay", {"amount": 5})])
    sums = "caps: {sums: [{id: s, tool: pay, field: amount, per: run, max: 10, then: ask}]}\n"
    assert changes(tried(proxy, OPEN + sums)) == [("pay", "allow", "ask", "sum:s")]
    late = Proxy(proxy.engine, events=proxy.events[2:])
    engine = PolicyEngine(read_policy((OPEN + sums).encode(), "p.yaml"))
    into = Comparison(engine.policy.file, 100)
    for _ in simulated(late.events, Again(engine, MadePast(proxy)), into):
        pass
    assert changes(into.result()) == [("pay", "allow", "ask", "sum:s")]


def test_events_before_a_time_only_count() -> None:
    proxy = proxy_under()
    for run in ("a", "b"):
        proxy.reply(run, [("pay", {})])
    found = tried(proxy, OPEN + "caps: {day: {writes: 1}}\n", since_us=proxy.now_us)
    assert (found.judged, found.changed) == (1, 1)


def test_what_others_denied_stays_denied() -> None:
    proxy = proxy_under()
    proxy.reply("r", [("pay", {})])
    event = proxy.events[0]
    assert isinstance(event, Judged)
    for rule in ("budget:day", "envelope", "agent-tools"):
        denied = Recorded(tool_call_id="t", tool="pay", arguments="{}", decision="deny", rule=rule)
        proxy.events[0] = Judged(1, 0, event.run, "call-0", (denied,), event.agent, event.user, "")
        found = tried(proxy, OPEN)
        assert (found.outside, found.changed, found.moved[0].now) == (1, 0, "deny")


def test_an_ask_is_an_ask_whatever_became_of_it() -> None:
    def said(rule: str, decision: str) -> tuple[Decision, str]:
        one = Recorded(
            tool_call_id="t", tool="pay", arguments="{}", decision=decision, rule=rule, hits=("r", "s")
        )
        return word(one)[:2]

    for rule, decision in (
        ("approved", "allow"),
        ("no-approver", "deny"),
        ("approval-pending", "deny"),
        ("approval-denied", "deny"),
        ("approval-expired", "deny"),
    ):
        assert said(rule, decision) == (Decision.ASK, "r")


def test_an_explanation_takes_the_recorded_facts_for_its_own_policy_alone() -> None:
    rules = "rules: [{id: late, then: deny, when: 'run.sensitivity > label.internal'}]\n"
    proxy = proxy_under(OPEN + rules)
    [verdict] = proxy.reply("r", [("pay", {})])
    event = proxy.events[0]
    assert isinstance(event, Judged)
    inherited = Facts(
        now_us=event.at_us, sensitivity=3, started_us=event.at_us, counters={"sum:x": 1_500_000}
    )
    of = replace(event, facts=inherited)
    found = explained(of, proxy.engine, MadePast(proxy))
    assert (found.run.label, found.run.counters, found.run.snapshot) == ("secret", {"sum:x": 1.5}, True)
    assert (verdict.decision, found.calls[0].again_rule, found.reproduced) == ("allow", "late", False)
    assert [(text.rule, text.text) for text in found.calls[0].rules] == [
        ("tier:autonomous", ""),
        ("late", "run.sensitivity > label.internal"),
    ]
    other = PolicyEngine(read_policy((OPEN + rules + "# changed\n").encode(), "p.yaml"))
    again = explained(of, other, MadePast(proxy))
    assert (again.run.sensitivity, again.same_policy, again.reproduced) == (0, False, True)
