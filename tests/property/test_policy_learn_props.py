"""A policy that is proposed from traffic fits it, loads, passes its own tests, and quotes nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.policy.args_schema import compile_schema
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.context import AgentFacts, Context, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.learn import Learning
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.proposal import proposal
from llm_proxy.policy.shape import Shape, fitting
from llm_proxy.policy.verdict import Proposed

MARK = "sEcReT"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT.map(lambda text: MARK + text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["to", "id", "n", "", "a b", "ann@example.com"]) | TEXT, VALUES, max_size=5
)
TOOLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(st.lists(ARGUMENTS, min_size=1, max_size=6))
@settings(deadline=None)
def test_the_schema_of_what_was_seen_fits_it(seen: list[dict[str, Any]]) -> None:
    shape = Shape()
    for value in seen:
        shape.add(value)
    schema = shape.schema()
    compiled = compile_schema(schema)
    assert [compiled.complaint(value) for value in seen] == [""] * len(seen)
    assert MARK not in json.dumps(schema)
    made = fitting(schema)
    assert isinstance(made, dict)
    assert compiled.complaint(made) == ""


@given(st.dictionaries(TOOLS, st.lists(ARGUMENTS, min_size=1, max_size=3), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_the_proposal_loads_and_asks_for_all_that_was_seen(seen: dict[str, list[dict[str, Any]]]) -> None:
    into = Learning()
    calls = [Proposed("c", tool, json.dumps(args)) for tool, each in seen.items() for args in each]
    for call in calls:
        into.called(call.name, call.arguments, "bot", "r")
    text = proposal(into, "made up")
    assert MARK not in text
    policy = read_policy(text.encode(), "learned.yaml", {"approvers"})
    assert list(policy.tools) == sorted(seen)
    report = run_cases(policy)
    assert report.passed
    assert len(report.results) == len(seen) + 1
    context = Context(AgentFacts("bot"), UserFacts(), RunFacts(), 1_700_000_000.0)
    said = [(verdict.decision, verdict.rule) for verdict in PolicyEngine(policy).decide(calls[:100], context)]
    assert set(said) == {("ask", "tier:human-approval")}
