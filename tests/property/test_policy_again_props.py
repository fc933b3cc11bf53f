"""Judging the record again: by the same policy nothing changes, whatever the runs, and nothing is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.policy.again import Again
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.simulate import Compared, Comparison, differing, simulated
from tests.unit.recorded_runs import MadePast, Proxy

POLICY = b"""
policy: {id: p, version: 1}
posture: {default: ask, fallback: deny}
tools:
  read: {effect: read, tier: autonomous, result: {sensitivity: confidential, trust: internal}}
  fetch: {effect: read, sink: external, clearance: public, tier: autonomous, result: {trust: untrusted}}
  send: {effect: irreversible, sink: external, clearance: internal, tier: autonomous, identity_args: [to]}
  pay: {effect: write, tier: human-approval}
  odd: {effect: write}
rules:
  - {id: exfil, then: deny, when: 'tool.sink == "external" && run.sensitivity > tool.clearance'}
  - {id: unproven, then: ask, when: 'run.untrusted && tool.effect != "read" && !call.identity_from_user'}
  - {id: again, then: deny, when: 'call.repeated > 1'}
sequence:
  - {id: read-then-pay, after: {tool: fetch}, forbid: {tool: pay}, then: deny}
  - {id: look, before: {tool: send}, require: {tool: read, within_s: 5}, otherwise: deny}
caps: {run: {calls: 6, writes: 2, identical_calls: 3}}
freeze: {on: {denials_per_run: 7}, then: deny, scope: run}
"""
LOOSER = POLICY.replace(b"then: deny, when: 'call.repeated", b"then: ask, when: 'call.repeated").replace(
    b"calls: 6", b"calls: 60"
)
TOOLS = ["read", "fetch", "send", "pay", "odd", "nobody"]
CALL = st.tuples(
    st.sampled_from(TOOLS),
    st.sampled_from(
        [{"to": "ann@example.com"}, {"to": "eve"}, {}, {"id": 1}, '{"id": 1', '{"id": 1, "id": 2}']
    ),
)
STEP = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.lists(CALL, min_size=1, max_size=3),
    st.sampled_from(["", "write to ann@example.com"]),
    st.integers(0, 3),
    st.sampled_from([0, 0, 0, 1]),
)
RUNS = st.lists(STEP, max_size=25)


def recorded(steps: Any, policy: bytes = POLICY) -> Proxy:
    proxy = Proxy(PolicyEngine(read_policy(policy, "p.yaml")))
    for run, calls, said, answered, unknown in steps:
        proxy.results(run, answered, unknown)
        proxy.reply(run, calls, said)
    return proxy


def judged_again(proxy: Proxy, policy: bytes, most_held: int = 1_000) -> Compared:
    engine = PolicyEngine(read_policy(policy, "p.yaml"))
    into = Comparison(engine.policy.file, 1_000)
    for _ in simulated(proxy.events, Again(engine, MadePast(proxy), most_held), into):
        pass
    return into.result()


@given(RUNS)
@settings(max_examples=120, deadline=None)
def test_by_the_same_policy_nothing_changes(steps: Any) -> None:
    proxy = recorded(steps)
    found = judged_again(proxy, POLICY)
    assert (found.changed, found.rule_changed, found.changes) == (0, 0, ())
    assert found.judged == sum(len(calls) for _, calls, *_ in steps)
    assert sum(one.count for one in found.moved) == found.judged


@given(RUNS)
@settings(max_examples=60, deadline=None)
def test_a_run_that_was_forgotten_is_read_again(steps: Any) -> None:
    proxy = recorded(steps)
    for policy in (POLICY, LOOSER):
        assert judged_again(proxy, policy, most_held=1) == judged_again(proxy, policy)


@given(RUNS)
@settings(max_examples=60, deadline=None)
def test_two_policies_differ_as_each_differs_from_the_record(steps: Any) -> None:
    """The record was made by one of the two: comparing them is comparing the other with it."""
    proxy = recorded(steps)
    old, new = (PolicyEngine(read_policy(policy, "p.yaml")) for policy in (POLICY, LOOSER))
    into = Comparison(new.policy.file, 1_000)
    past = MadePast(proxy)
    for _ in differing(proxy.events, Again(old, past), Again(new, past), into):
        pass
    assert into.result() == judged_again(proxy, LOOSER)
    assert all((one.was, one.now) != ("allow", "deny") for one in into.result().moved)
