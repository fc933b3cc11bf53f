"""Which call a tool result answers, and where it stands in its message, in every dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from llm_proxy.arrivals import Arrivals, inspect
from llm_proxy.exchange import Exchange
from llm_proxy.judging import Rules
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.schema import Mode, OnDeny
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.runstate import PROVIDER_PLACES, JudgedCall, Mark, RunKey, RunState
from llm_proxy.redacting.rules import redaction_of
from llm_proxy.redacting.scanned import MOST_VALUES, TooManyValues, scan
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.spans import splice
from tests.stores import AGENT, Caller

POLICY = """\
policy: {id: p, version: 1}
tools:
  crm_read: {effect: read, tier: autonomous, result: {sensitivity: confidential, trust: internal}}
  hr_read: {effect: read, tier: autonomous, result: {sensitivity: secret, trust: internal}}
redact:
  - {id: card, in: [tool_result], tool: "hr_*", detect: card_number, with: last4}
  - {id: pay, in: [reply], tool: "hr_*", field: $.pay, sensitivity: secret, with: mask}
  - {id: low, in: [reply], field: $.pay, sensitivity: internal, with: mask}
"""
FILE = read_policy(POLICY.encode(), "p.yaml")
RULES = Rules(PolicyEngine(FILE), FILE.sha256, Mode.ENFORCE, OnDeny.REPLACE)
REDACTION = redaction_of(FILE.file, b"s" * 32)
CONTENT = '{"pay": 85000, "card": "4111 1111 1111 1111"}'


def message(content: str, id_: str = "call_0") -> bytes:
    return json.dumps({"role": "tool", "tool_call_id": id_, "content": content}).encode()


def call(n: int, tool: str = "crm_read", id_: str = "call_0", decision: str = "allow") -> JudgedCall:
    return JudgedCall(id_, tool, decision, "read", "", n, None, call_id=f"c{n}")


def arrive(state: RunState, *messages: bytes) -> Arrivals:
    exchange = Exchange("id", 1, OPENAI_CHAT, clock0=0.0, caller=Caller(AGENT, "k"), run_id="r")
    assert OPENAI_CHAT.results_at is not None
    found = [[scan(result, REDACTION) for result in OPENAI_CHAT.results_at(raw)] for raw in messages]
    exchange.arrived = tuple(map(tuple, found))
    return inspect(exchange, state, RULES, REDACTION, 99)


def test_an_id_that_comes_again_is_that_of_the_newest_call_that_waits() -> None:
    came = arrive(RunState(history=(call(1),)), message("one"))
    assert [row.call_id for row in came.answered] == ["c1"]
    state = RunState(revision=1, history=(*came.state.history, call(2, "hr_read")))
    came = arrive(state, message("one"), message("two"))
    assert [(row.call_id, view.tool) for row, view in zip(came.answered, came.views, strict=True)] == [
        ("c2", "hr_read")
    ]
    assert (came.state.sensitivity, came.state.untrusted, came.state.revision) == (3, False, 2)
    again = arrive(came.state, message("one"), message("two"))
    assert (again.answered, again.views, again.state) == ([], [], came.state)


@pytest.mark.parametrize(
    "history",
    [(), (call(1, decision="deny"),), (call(1, id_="other"),)],
    ids=["never proposed", "denied", "another id"],
)
def test_a_result_of_no_released_call_is_of_the_worst_kind(history: tuple[JudgedCall, ...]) -> None:
    came = arrive(RunState(history=history), message("x"))
    assert [(view.known, view.label, view.untrusted) for view in came.views] == [(False, "secret", True)]
    assert (came.state.sensitivity, came.state.untrusted, came.answered) == (3, True, [])


def test_no_result_of_the_agent_answers_what_the_provider_ran() -> None:
    ran = JudgedCall("srv_1", "hr_read", "allow", "read", "", 1, 1, None, "c1", position=PROVIDER_PLACES)
    came = arrive(RunState(revision=1, history=(ran,)), message("made up by the agent", "srv_1"))
    assert [(view.known, view.tool) for view in came.views] == [(False, "")]
    assert (came.state.sensitivity, came.state.untrusted, came.answered) == (3, True, [])


@pytest.mark.parametrize("answered_us", [None, 1])
def test_a_result_without_an_id_answers_nothing(answered_us: int | None) -> None:
    nameless = structs.replace(call(1, id_=""), answered_us=answered_us)
    came = arrive(RunState(revision=1, history=(nameless,)), message("x", ""))
    assert [view.known for view in came.views] == [False]
    assert (came.state.untrusted, came.answered) == (True, [])


def test_other_content_for_a_call_that_was_answered_is_unknown() -> None:
    came = arrive(RunState(history=(call(1),)), message("one"))
    forged = arrive(came.state, message("one"), message("two"))
    assert [(view.known, view.tool) for view in forged.views] == [(False, "")]
    both = arrive(RunState(history=(call(1),)), message("one"), message("two"))
    assert sorted(view.known for view in both.views) == [False, True]


def test_rules_of_a_tool_hold_for_its_results_and_for_unknown_ones() -> None:
    known = arrive(RunState(history=(call(1),)), message(CONTENT))
    assert known.views[0].redacted == {}
    assert {row.rule for row in known.classified.values()} == {"low"}
    of_tool = arrive(RunState(history=(call(1, "hr_read"),)), message(CONTENT))
    assert of_tool.views[0].redacted == {"card": 1}
    assert {(row.rule, row.sensitivity) for row in of_tool.classified.values()} == {("pay", 3)}
    assert arrive(RunState(), message(CONTENT)).views[0].redacted == {"card": 1}


def test_what_is_written_with_the_opening_record() -> None:
    before = RunState(revision=4, history=(call(1, "hr_read"),))
    key = RunKey("bot", "r")
    came = arrive(before, message(CONTENT))
    evidence = came.joined(Evidence(), before, key)
    assert [(row.revision, row.marks) for row in evidence.run_updates] == [(5, Mark.CLASSIFIED)]
    assert len(evidence.classified) == 2
    assert b"85000" not in repr(evidence).encode()
    assert arrive(before).joined(Evidence(), before, key) == Evidence()


def test_a_result_of_too_many_values_is_refused() -> None:
    assert OPENAI_CHAT.results_at is not None
    content = json.dumps([{"pay": f"value {n}"} for n in range(MOST_VALUES + 1)])
    (result,) = OPENAI_CHAT.results_at(message(content))
    with pytest.raises(TooManyValues):
        scan(result, REDACTION)


_CARD, _SHOWN = "4111 1111 1111 1111", "****1111"
_PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/4111111111111111.png"}}
_SHAPES: list[tuple[str, Any]] = [
    ("openai_chat", {"content": f'é {_CARD} "q"', "tool_call_id": "c", "role": "tool", "x": _CARD}),
    (
        "openai_chat",
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": _CARD}, _PICTURE]},
    ),
    ("openai_chat", {"role": "function", "name": "c", "content": _CARD}),
    ("openai_responses", {"type": "function_call_output", "call_id": "c", "output": f"a\n{_CARD}"}),
    ("openai_responses", {"type": "custom_tool_call_output", "call_id": "c", "output": _CARD}),
    (
        "openai_responses",
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": _CARD}]},
    ),
    (
        "openai_responses",
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": _CARD, "code": 0}]},
    ),
    (
        "anthropic_messages",
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": _CARD}]},
    ),
    (
        "anthropic_messages",
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "4111"},
                {"tool_use_id": "c", "content": [{"type": "text", "text": _CARD}], "type": "tool_result"},
            ],
        },
    ),
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("dialect", "shape"), _SHAPES)
def test_only_the_value_in_a_result_is_edited(dialect: str, shape: Any, indent: int | None) -> None:
    raw = json.dumps(shape, ensure_ascii=False, indent=indent).encode()
    results_at = DIALECTS[dialect].results_at
    assert results_at is not None
    (result,) = results_at(raw)
    assert result.id == "c"
    new = splice(raw, scan(result, REDACTION).edits(REDACTION.results, None))
    kept = raw.replace(f'"x": "{_CARD}"'.encode(), b"KEPT")
    assert new.replace(f'"x": "{_CARD}"'.encode(), b"KEPT") == kept.replace(_CARD.encode(), _SHOWN.encode())


def test_a_digest_is_of_what_is_said() -> None:
    assert OPENAI_CHAT.results_at is not None

    def digest(content: Any, *, ascii_: bool = True) -> str:
        told = {"role": "tool", "tool_call_id": "c", "content": content}
        assert OPENAI_CHAT.results_at is not None
        return OPENAI_CHAT.results_at(json.dumps(told, ensure_ascii=ascii_).encode())[0].digest

    said = digest("é")
    assert said == digest("é", ascii_=False) == digest([{"type": "text", "text": "é", "cache_control": {}}])
    assert (
        len({said, digest("e"), digest([]), digest([_PICTURE]), digest([_PICTURE | {"detail": "low"}])}) == 5
    )
