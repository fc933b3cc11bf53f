"""What may stand in the body of `POST /v1/runs`: everything else is refused, with the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import Unit
from budgets.amounts import LARGEST
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.runs.envelope import Envelope, bound_of, read, write
from llm_proxy.runs.wish import (
    EXAMPLE,
    LIFE_S,
    MAX_PURPOSE,
    MAX_TOOLS,
    MAX_WHY,
    EnvelopeWish,
    Trigger,
    envelope_of,
    life_s,
    read_end_wish,
    read_run_wish,
)


def _wish(**more: Any) -> bytes:
    return json.dumps({"purpose": "p", **more}).encode()


def test_a_whole_wish_is_read() -> None:
    wish = read_run_wish(
        _wish(
            envelope={"usd": 0.1, "requests": 3, "tools": ["a", "b*", "a"], "expires_s": 60},
            parent="root",
            user="ada",
            trigger={"kind": "ticket", "id": "4711", "url": "https://desk.example/4711"},
            run_id="mine",
        )
    )
    assert (wish.purpose, wish.parent, wish.user, wish.run_id) == ("p", "root", "ada", "mine")
    assert wish.trigger == Trigger(kind="ticket", id="4711", url="https://desk.example/4711")
    envelope = envelope_of(wish.envelope)
    assert envelope == Envelope(maximum={Unit.USD: 100_000, Unit.REQUESTS: 3}, tools=("a", "b*"))
    assert life_s(wish.envelope) == 60


def test_the_least_wish_lasts_an_hour_and_binds_nothing() -> None:
    wish = read_run_wish(_wish())
    assert envelope_of(wish.envelope) == Envelope()
    assert life_s(wish.envelope) == LIFE_S
    assert read_run_wish(EXAMPLE.encode()).envelope.requests == 40


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"[]", "Expected `object`"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"envelope": {}}', "purpose"),
        (b'{"purpose": null}', "purpose"),
        (b'{"purpose": "a", "purpose": "b"}', "'purpose' occurs twice"),
        (b'{"purpose": "a", "envelope": {"usd": 1, "usd": 2}}', "'usd' occurs twice"),
        (b'{"purpose": "a", "envelope": {"u\\u0073d": 1, "usd": 2}}', "'usd' occurs twice"),
        (_wish(purpose=""), "purpose must be 1 to"),
        (_wish(purpose="  "), "purpose must be 1 to"),
        (_wish(purpose="x" * (MAX_PURPOSE + 1)), "purpose must be 1 to"),
        (_wish(purpose="a\u001b[2J"), "purpose must be 1 to"),
        (_wish(budget=1), "unknown field `budget`"),
        (_wish(envelope={"dollars": 1}), "unknown field `dollars`"),
        (_wish(envelope={"requests": "3"}), "requests"),
        (_wish(envelope={"requests": 1.5}), "requests"),
        (_wish(envelope={"requests": True}), "requests"),
        (_wish(envelope={"usd": True}), "usd"),
        (_wish(envelope={"tools": "a"}), "tools"),
        (_wish(envelope={"tools": [1]}), "tools"),
        (_wish(trigger={"type": "x"}), "unknown field `type`"),
        (_wish(trigger={"url": "javascript:alert(1)"}), "trigger.url is no http"),
        (_wish(trigger={"url": "https://" + "x" * 3_000}), "trigger.url must be"),
        (_wish(trigger={"kind": "k" * 65}), "trigger.kind must be"),
        (_wish(trigger={"id": "i" * 257}), "trigger.id"),
        (_wish(run_id="r" * 257), "run_id"),
        (_wish(run_id="a\nb"), "run_id"),
        (_wish(run_id=" a"), "run_id begins or ends with a space"),
        (_wish(parent="p" * 257), "parent"),
        (_wish(user="u" * 257), "user"),
        (_wish(user="a\ud800"), "is not a wish for a run"),
    ],
)
def test_what_is_no_wish_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(ProxyError) as refused:
        read_run_wish(body)
    assert refused.value.kind is Kind.INVALID_REQUEST
    assert said in refused.value.message
    assert not refused.value.retryable


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"usd": -1}, "envelope.usd"),
        ({"usd": 0.0000001}, "more than six decimals"),
        ({"usd": "1e-7"}, "more than six decimals"),
        ({"usd": 1e300}, "more than can be counted"),
        ({"usd": "NaN"}, "envelope.usd"),
        ({"usd": "Infinity"}, "envelope.usd"),
        ({"requests": -1}, "envelope.requests must be a whole number from 0"),
        ({"tokens": LARGEST + 1}, "envelope.tokens must be a whole number"),
        ({"tokens": 10**40}, "envelope.tokens must be a whole number"),
        ({"concurrency": 0}, "envelope.concurrency must be a whole number from 1"),
        ({"tools": [""]}, "envelope.tools"),
        ({"tools": ["x" * 257]}, "envelope.tools"),
        ({"tools": ["a\u202e"]}, "envelope.tools"),
        ({"tools": [f"t{n}" for n in range(MAX_TOOLS + 1)]}, "over 200 names"),
        ({"expires_s": 0}, "envelope.expires_s must be from 1 to 86400"),
        ({"expires_s": -5}, "envelope.expires_s must be from 1 to 86400"),
        ({"expires_s": 86_401}, "envelope.expires_s must be from 1 to 86400"),
    ],
)
def test_an_envelope_of_nonsense_is_refused(envelope: dict[str, Any], said: str) -> None:
    wish = read_run_wish(_wish(envelope=envelope)).envelope
    with pytest.raises(ProxyError) as refused:
        _ = envelope_of(wish), life_s(wish)
    assert refused.value.kind is Kind.INVALID_REQUEST
    assert said in refused.value.message


@given(st.decimals(min_value=0, max_value=10**9, places=6))
def test_dollars_are_exact(dollars: Any) -> None:
    body = b'{"purpose": "p", "envelope": {"usd": %b}}' % str(dollars).encode()
    assert envelope_of(read_run_wish(body).envelope).maximum == {Unit.USD: int(dollars * 1_000_000)}


@given(
    st.dictionaries(st.sampled_from(Unit), st.integers(1, LARGEST)),
    st.none() | st.lists(st.text(min_size=1, max_size=20), max_size=5).map(tuple),
)
def test_an_envelope_is_stored_as_it_is(maximum: dict[Unit, int], tools: tuple[str, ...] | None) -> None:
    envelope = Envelope(maximum=maximum, tools=tools)
    assert read(write(envelope)) == envelope
    bound = bound_of("bot", "r", envelope)
    assert (bound is None) is not maximum
    assert bound is None or dict(bound.limit.maximum) == maximum


def test_every_unit_of_a_limit_can_stand_in_an_envelope() -> None:
    assert {unit.value for unit in Unit} <= set(EnvelopeWish.__struct_fields__)


@pytest.mark.parametrize("why", ["", "  ", "x" * (MAX_WHY + 1), "a\nb"])
def test_an_end_needs_a_reason_that_can_be_told(why: str) -> None:
    with pytest.raises(ProxyError, match="why must be 1 to 256 characters"):
        read_end_wish(json.dumps({"why": why}).encode())


def test_a_reason_is_read() -> None:
    assert read_end_wish(b'{"why": "done"}').why == "done"
    with pytest.raises(ProxyError, match="unknown field `agent`"):
        read_end_wish(b'{"why": "done", "agent": "bot"}')
