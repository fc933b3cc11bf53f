"""Properties of the policy engine that must hold for any input."""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_proxy.policy.arguments import BadArgs, parse_arguments
from llm_proxy.policy.canonical import Json, canonical, digest
from llm_proxy.policy.context import AgentFacts, Context, RunFacts, UserFacts
from llm_proxy.policy.destinations import compile_check
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.globs import matches
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.schema import Destination
from llm_proxy.policy.verdict import Proposed

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)
ANYTHING = st.recursive(
    SCALARS | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=40,
)


def parse(text: str) -> dict[str, Json] | BadArgs:
    return parse_arguments(text, max_bytes=100_000, max_depth=8)


def depth(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def clean(value: Json) -> bool:
    """A second, slower statement of what may stand in arguments."""
    if isinstance(value, dict):
        return all(clean(key) and clean(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(clean, value))
    if isinstance(value, str):
        return "\0" not in value and not any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    return value is None or (math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63)


@given(ANYTHING, st.booleans())
def test_the_parser_agrees_with_a_slow_reference(value: Json, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    result = parse(text)
    if isinstance(value, dict) and clean(value) and depth(value) <= 8:
        assert result == value
    else:
        assert isinstance(result, BadArgs)


@given(st.text(alphabet='{}[]",:\\ue-+.0123456789 \n\taNI\ud800\0é', max_size=60))
@example('{"a":-0}')
def test_whatever_is_read_is_read_alike_elsewhere(text: str) -> None:
    result = parse(text)
    if isinstance(result, dict) and text:
        assert result == json.loads(text)
        assert clean(result)
        assert depth(result) <= 8


@given(OBJECTS, st.integers(0, 4), st.booleans())
def test_spelling_does_not_change_the_digest(value: dict[str, Json], indent: int, escaped: bool) -> None:
    shuffled = dict(sorted(value.items(), key=lambda pair: hash(pair[0])))
    again = parse_arguments(
        json.dumps(shuffled, indent=indent, ensure_ascii=escaped), max_bytes=10**6, max_depth=64
    )
    assert isinstance(again, dict)
    assert digest("t", again) == digest("t", value)


@given(OBJECTS, OBJECTS)
def test_different_arguments_differ(one: dict[str, Json], other: dict[str, Json]) -> None:
    if json.loads(canonical(one)) != json.loads(canonical(other)):
        assert digest("t", one) != digest("t", other)


@given(OBJECTS)
def test_canonical_text_says_the_same(value: dict[str, Json]) -> None:
    """As doubles: RFC 8785 spells a large double by its shortest digits, not by its exact integer."""
    text = json.dumps(value)
    assert json.loads(canonical(value), parse_int=float) == json.loads(text, parse_int=float)


def test_numbers_are_spelled_as_rfc_8785_appendix_b_says() -> None:
    for bits, spelled in (
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ):
        assert canonical(struct.unpack(">d", bytes.fromhex(bits))[0]) == spelled


def test_keys_sort_by_utf_16() -> None:
    """RFC 8785, section 3.2.3."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    order = list(json.loads(canonical(dict.fromkeys(keys, 0))))
    assert order == ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=10))
def test_globs_agree_with_a_reference(pattern: str, name: str) -> None:
    def slow(p: str, n: str) -> bool:
        if not p:
            return not n
        if p[0] == "*":
            return any(slow(p[1:], n[at:]) for at in range(len(n) + 1))
        return bool(n) and n[0] == p[0] and slow(p[1:], n[1:])

    assert matches(pattern, name) is slow(pattern, name)


HOSTILE = st.text(alphabet='ae.x@:/\\?#%2[]1;, <>"\t\u3002\uff0e-', max_size=30)


@settings(max_examples=300)
@given(HOSTILE, HOSTILE)
def test_no_text_around_another_host_reaches_it(before: str, after: str) -> None:
    web = compile_check(Destination(hosts=("a.ex",)))
    mail = compile_check(Destination(email_domains=("a.ex",)))
    for text in (f"https://{before}evil.ex{after}", f"https://evil.ex/{after}", f"https://evil.ex{after}"):
        authority = text[8:].replace("?", "/").replace("#", "/").split("/")[0]
        if "evil.ex" in authority:
            assert not web(text, {})
    assert not mail(f"{before}@evil.ex", {})
    assert not mail(f"x@evil.ex,{after}", {})


BASE = """\
policy: {id: p, version: 1}
posture: {default: ask, fallback: deny}
tools:
  read_in: {effect: read, tier: autonomous, result: {sensitivity: confidential, trust: internal}}
  read_out: {effect: read, sink: external, tier: autonomous, result: {}}
  write: {effect: write, tier: pre-approved, args: {type: object}}
  pay: {effect: irreversible, tier: human-approval}
  plain: {effect: write}
caps: {run: {calls: 4, writes: 2, identical_calls: 2}}
sequence:
  - {id: ban, after: {tool: read_in}, forbid: {tool: read_out}, then: deny}
rules:
  - {id: leak, then: deny, when: 'tool.sink == "external" && run.sensitivity > tool.clearance'}
  - {id: wary, then: ask, when: 'run.untrusted && tool.effect != "read"'}
"""
CONDITIONS = (
    'tool.effect == "write"',
    'tool.name.startsWith("read")',
    "run.calls > 1",
    "call.siblings > 1",
    'has(args.x) && args.x == "1"',
    "args.x > 1",
    "call.repeated > 0",
    "false",
)
PLAIN = PolicyEngine(read_policy(BASE.encode(), "p"))
DENYING = [
    PolicyEngine(read_policy((BASE + f"  - {{id: extra, then: deny, when: '{when}'}}\n").encode(), "p"))
    for when in CONDITIONS
]
CALLS = st.lists(
    st.builds(
        lambda tool, args: Proposed("c", tool, args),
        st.sampled_from(["read_in", "read_out", "write", "pay", "plain", "nope"]),
        st.sampled_from(["{}", '{"x": "1"}', '{"x": 2}', '{"x": 1, "x": 1}', ""]),
    ),
    max_size=5,
)


def context(sensitivity: int = 0, calls: int = 0, *, untrusted: bool = False) -> Context:
    run = RunFacts(sensitivity=sensitivity, untrusted=untrusted, calls=calls)
    return Context(AgentFacts("a"), UserFacts(), run, 1e9)


CONTEXTS = st.builds(context, st.integers(0, 3), st.integers(0, 5), untrusted=st.booleans())


@given(CALLS, CONTEXTS, st.sampled_from(DENYING))
def test_adding_a_deny_rule_never_loosens(calls: list[Proposed], at: Context, stricter: PolicyEngine) -> None:
    for before, after in zip(PLAIN.decide(calls, at), stricter.decide(calls, at), strict=True):
        assert after.decision.strictness >= before.decision.strictness


@given(CALLS, st.integers(0, 5), st.booleans())
def test_higher_labels_never_loosen(calls: list[Proposed], used: int, untrusted: bool) -> None:
    ladder = [PLAIN.decide(calls, context(rank, used, untrusted=untrusted)) for rank in range(4)]
    ladder.append(PLAIN.decide(calls, context(3, used, untrusted=True)))
    for lower, higher in pairwise(ladder):
        for before, after in zip(lower, higher, strict=True):
            assert after.decision.strictness >= before.decision.strictness


@given(CALLS, CONTEXTS)
def test_a_verdict_depends_on_nothing_else(calls: list[Proposed], at: Context) -> None:
    assert PLAIN.decide(calls, at) == PLAIN.decide(calls, at)


@given(CALLS, CALLS, CONTEXTS)
def test_later_siblings_never_loosen(calls: list[Proposed], more: list[Proposed], at: Context) -> None:
    alone, together = PLAIN.decide(calls, at), PLAIN.decide([*calls, *more], at)
    for before, after in zip(alone, together, strict=False):
        assert after.decision.strictness >= before.decision.strictness


@given(st.text(max_size=20), st.text(max_size=40))
def test_any_call_gets_a_verdict(name: str, arguments: str) -> None:
    (verdict,) = PLAIN.decide([Proposed("c", name, arguments)], context())
    assert verdict.rule
