"""Classification of failures, and the waits that upstreams ask for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.failures import (
    MEANING,
    Charge,
    Evidence,
    FailureKind,
    classify_in_band,
    classify_status,
    parse_retry_after,
    retry_after_from,
)

K = FailureKind
NOW = datetime(2026, 10, 17, 8, tzinfo=UTC).timestamp()


def test_every_kind_has_a_meaning() -> None:
    assert set(MEANING) == set(FailureKind)


TABLE = """
connect_refused      retry  fall_back  down   never
dns                  retry  fall_back  down   never
tls                  -      fall_back  down   never
connect_timeout      retry  fall_back  down   never
first_event_timeout  -      fall_back  down   maybe
idle_timeout         -      fall_back  down   used
total_timeout        -      -          none   maybe
cut                  retry  fall_back  down   used
truncated            retry  fall_back  down   used
malformed            retry  fall_back  down   used
bad_request          -      -          alive  never
auth                 -      fall_back  down   never  of_key
not_found            -      fall_back  alive  never
request_timeout      retry  fall_back  down   maybe
conflict             retry  fall_back  alive  never
too_large            -      -          alive  never
rate_limited         retry  fall_back  down   never  of_key
quota_exhausted      -      fall_back  down   never  of_key
server_error         retry  fall_back  down   never
gateway_timeout      retry  fall_back  down   maybe
overloaded           retry  fall_back  down   never
context_length       -      -          alive  never
content_filter       -      -          alive  maybe
client_gone          -      -          none   maybe
superseded           -      -          none   maybe
"""


def test_what_each_kind_means() -> None:
    table: dict[str, tuple[bool, bool, str, str, bool]] = {}
    for line in TABLE.strip().splitlines():
        kind, retry, fall_back, evidence, charge, *of_key = line.split()
        table[kind] = retry == "retry", fall_back == "fall_back", evidence, charge, of_key == ["of_key"]
    assert table == {
        kind.value: (m.retry_same, m.fall_back, m.evidence.value, m.charge.value, m.of_key)
        for kind, m in MEANING.items()
    }


def test_what_may_be_retried_may_also_fall_back() -> None:
    assert all(m.fall_back for m in MEANING.values() if m.retry_same)


@pytest.mark.parametrize(
    "kind", [K.BAD_REQUEST, K.TOO_LARGE, K.CONTEXT_LENGTH, K.CONTENT_FILTER, K.CLIENT_GONE]
)
def test_the_callers_own_failures_end_the_call_and_spare_the_breaker(kind: FailureKind) -> None:
    meaning = MEANING[kind]
    assert (meaning.retry_same, meaning.fall_back) == (False, False)
    assert meaning.evidence is not Evidence.DOWN


@pytest.mark.parametrize("kind", [K.CONNECT_REFUSED, K.DNS, K.TLS, K.CONNECT_TIMEOUT, K.RATE_LIMITED, K.AUTH])
def test_what_was_never_accepted_costs_nothing(kind: FailureKind) -> None:
    assert MEANING[kind].charge is Charge.NEVER
    assert MEANING[kind].evidence is Evidence.DOWN


@pytest.mark.parametrize(
    ("status", "code", "type_", "kind"),
    [
        (400, "", "invalid_request_error", K.BAD_REQUEST),
        (400, "context_length_exceeded", "invalid_request_error", K.CONTEXT_LENGTH),
        (400, "content_filter", "", K.CONTENT_FILTER),
        (400, "overloaded_error", "overloaded_error", K.BAD_REQUEST),
        (401, "invalid_api_key", "", K.AUTH),
        (402, "", "", K.QUOTA_EXHAUSTED),
        (403, "", "", K.AUTH),
        (404, "model_not_found", "", K.NOT_FOUND),
        (408, "", "", K.REQUEST_TIMEOUT),
        (409, "", "", K.CONFLICT),
        (413, "", "request_too_large", K.TOO_LARGE),
        (418, "", "", K.BAD_REQUEST),
        (422, "", "", K.BAD_REQUEST),
        (429, "rate_limit_exceeded", "requests", K.RATE_LIMITED),
        (429, "insufficient_quota", "insufficient_quota", K.QUOTA_EXHAUSTED),
        (500, "", "server_error", K.SERVER_ERROR),
        (502, "", "", K.SERVER_ERROR),
        (503, "", "overloaded_error", K.OVERLOADED),
        (503, "invalid_request_error", "", K.SERVER_ERROR),
        (504, "", "", K.GATEWAY_TIMEOUT),
        (529, "", "overloaded_error", K.OVERLOADED),
        (302, "", "", K.MALFORMED),
    ],
)
def test_status_first_then_the_vendors_word(status: int, code: str, type_: str, kind: FailureKind) -> None:
    assert classify_status(status, code, type_) is kind


@pytest.mark.parametrize(
    ("code", "type_", "kind"),
    [
        ("", "overloaded_error", K.OVERLOADED),
        ("429", "", K.RATE_LIMITED),
        ("rate_limit_exceeded", "", K.RATE_LIMITED),
        ("", "invalid_request_error", K.BAD_REQUEST),
        ("", "something_new", K.SERVER_ERROR),
        ("", "", K.SERVER_ERROR),
    ],
)
def test_in_band_errors(code: str, type_: str, kind: FailureKind) -> None:
    assert classify_in_band(code, type_) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("Sat, 17 Oct 2026 08:00:30 GMT", 30.0),
        ("Sat, 17 Oct 2026 10:00:30 +0200", 30.0),
        ("Sat, 17 Oct 2026 07:00:00 GMT", 0.0),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("1e999", None),
        ("soon", None),
        ("٣", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_takes_any_text(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1m2.5s",
            },
            62.5,
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-10-17T08:00:09Z",
            },
            9.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m oops"}, None),
        ({}, None),
    ],
)
def test_the_vendors_reset_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_from(headers, NOW) == seconds
