"""The events of a call's span: every attempt, and every verdict."""

from __future__ import annotations

import msgspec

from llm_proxy.records.view import Attempt
from llm_proxy.telemetry.span import MAX_EVENTS
from tests.otlp_receiver import attributes_of
from tests.unit.span_reading import span_of
from tests.unit.telemetry_calls import rich_call


def test_attempts_and_verdicts_are_events() -> None:
    events = span_of(rich_call()).events
    told = [(e.name, attributes_of(e)) for e in events]
    assert [name for name, _ in told] == ["llm_proxy.attempt"] * 2 + ["llm_proxy.decision"] * 2
    assert told[0][1]["error.type"] == "unavailable"
    assert told[0][1]["http.response.status_code"] == 503
    assert "error.type" not in told[1][1]
    assert told[3][1]["llm_proxy.rule"] == "arguments"
    assert told[3][1]["gen_ai.tool.call.id"] == "c2"
    assert all("arguments" not in key for _, attributes in told for key in attributes)


def test_every_attempt_is_an_event_in_the_order_of_asking() -> None:
    call = rich_call()
    tried = Attempt(
        target="slow",
        provider="openai",
        model="gpt-4o",
        api_key=2,
        started_s=0.5,
        ended_s=2.0,
        failure="superseded",
        detail="another target answered first",
    )
    answered = Attempt(
        target="quick",
        provider="openai",
        model="gpt-4o",
        started_s=1.25,
        ended_s=3.0,
        first_event_s=1.75,
        status=200,
    )
    refused = Attempt(
        target="first",
        provider="openai",
        model="gpt-4o",
        started_s=0.0,
        ended_s=0.5,
        status=429,
        failure="rate_limited",
    )
    span = span_of(msgspec.structs.replace(call, attempts=(refused, answered, tried), decisions=()))
    told = [(event.time_unix_nano - span.start_time_unix_nano, attributes_of(event)) for event in span.events]
    every = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
    assert told == [
        (
            0,
            every
            | {
                "llm_proxy.target": "first",
                "llm_proxy.attempt.number": 1,
                "llm_proxy.attempt.duration_s": 0.5,
                "http.response.status_code": 429,
                "error.type": "rate_limited",
            },
        ),
        (
            500_000_000,
            every
            | {
                "llm_proxy.target": "slow",
                "llm_proxy.attempt.number": 2,
                "llm_proxy.attempt.api_key": 2,
                "llm_proxy.attempt.duration_s": 1.5,
                "error.type": "superseded",
                "llm_proxy.attempt.detail": "another target answered first",
            },
        ),
        (
            1_250_000_000,
            every
            | {
                "llm_proxy.target": "quick",
                "llm_proxy.attempt.number": 3,
                "llm_proxy.attempt.duration_s": 1.75,
                "llm_proxy.attempt.first_event_s": 1.75,
                "http.response.status_code": 200,
            },
        ),
    ]


def test_events_beyond_the_limit_are_counted() -> None:
    call = rich_call()
    many = msgspec.structs.replace(call, decisions=call.decisions * 100)
    span = span_of(many)
    assert len(span.events) == MAX_EVENTS
    assert span.dropped_events_count == 202 - MAX_EVENTS
