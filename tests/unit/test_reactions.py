"""What webhooks are told and when they are tried again; which refusals are told once."""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec
import pytest
from pydantic import SecretStr

from budgets import (
    Crossed,
    Expired,
    Limit,
    LimitBook,
    OnExceed,
    Refused,
    Scope,
    Settled,
    Subject,
    Taken,
    Unit,
    window_named,
)
from llm_proxy.config.choices import Event
from llm_proxy.config.values import usable_secret, webhook_key
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.reactions.alerts import Alerts, crossed
from llm_proxy.reactions.events import EVENT_OF, Announcer, Webhook
from llm_proxy.reactions.schedule import DELAYS_S, next_try_us, rest_s
from llm_proxy.reactions.signing import signed_headers
from llm_proxy.records import bodies
from llm_proxy.records.evidence import Draft, RecordKind
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.stores import NOW

DAY_S = 86_400
HOOKS = (
    Webhook("all", "http://a", b"s"),
    Webhook("money", "http://b", b"s", frozenset({Event.BUDGET_WARNED, Event.BUDGET_REFUSED})),
)
LIMITS = LimitBook(
    [
        Limit("stop", Scope(), window_named("day"), {Unit.USD: 5_000_000}, warn_at=0.8),
        Limit("soft", Scope(), window_named("24h"), {Unit.REQUESTS: 10}, OnExceed.WARN, warn_at=1),
        Limit("run", Scope(), window_named("run"), {Unit.TOKENS: 10}, warn_at=0.5),
    ]
)


def exchange(id_: str = "call-1") -> Exchange:
    found = Exchange(id_, NOW, OPENAI_CHAT, clock0=0.0, caller=Caller(Agent("bot"), "key"))
    found.run_id = "run-1"
    return found


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the specification's own libraries."""
    key = webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    told = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert told["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert told["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert told["webhook-timestamp"] == "1614265330"


def test_a_plain_secret_is_its_own_bytes() -> None:
    told = signed_headers(webhook_key("sécret"), "id", 1, b"{}")["webhook-signature"]
    mac = hmac.new("sécret".encode(), b"id.1.{}", hashlib.sha256).digest()
    assert told == "v1," + base64.b64encode(mac).decode()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!", "whsec_YQ=a"])
def test_a_broken_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="copy it anew") as error:
        usable_secret(SecretStr(secret))
    assert secret.removeprefix("whsec_") not in str(error.value) or secret == "whsec_"


def test_tries_go_on_for_about_a_day_and_then_end() -> None:
    now, tries = 0, 1
    while (at := next_try_us(tries, now, 0.5)) is not None:
        assert at > now
        now, tries = at, tries + 1
    assert tries == 1 + len(DELAYS_S) == 11
    assert 0.95 * DAY_S < now / 1e6 < 1.05 * DAY_S


def test_tries_are_spread_and_wait_for_what_is_asked() -> None:
    at = [next_try_us(2, 0, random) for random in (0.0, 0.5, 1.0)]
    assert at == [27_000_000, 30_000_000, 33_000_000]
    assert next_try_us(1, 0, 0.5, asked_s=100) == 100_000_000
    assert next_try_us(1, 0, 0.5, asked_s=1e9) == 3_600_000_000
    assert next_try_us(1, 0, 0.5, asked_s=1) == 5_000_000


def test_an_endpoint_that_fails_rests_longer_and_longer() -> None:
    assert [rest_s(failures) for failures in (0, 1, 2, 3, 8, 10_000)] == [0, 0.5, 1, 2, 60, 60]


def test_a_record_becomes_one_event_for_all_who_want_it() -> None:
    draft = Draft(
        RecordKind.KEY_ISSUED, NOW, None, None, "bot", b'{"key_id":"k","expires_us":1800000000000000}'
    )
    (row,) = Announcer(HOOKS)(draft)
    assert (row.webhook, row.event, row.created_us, row.next_us) == ("all", "key.issued", NOW, NOW)
    assert msgspec.json.decode(row.body) == {
        "type": "key.issued",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "key_id": "k",
            "expires_us": 1_800_000_000_000_000,
            "expires_at": "2027-01-15T08:00:00.000Z",
            "agent_id": "bot",
        },
    }
    both = Announcer(HOOKS).deliveries(Event.BUDGET_WARNED, {}, NOW)
    assert [row.webhook for row in both] == ["all", "money"]
    assert len({row.id for row in both}) == 1


def test_every_event_comes_from_a_record_but_those_told_once_by_a_process() -> None:
    otherwise = {Event.BUDGET_WARNED, Event.BUDGET_EXCEEDED, Event.BUDGET_REFUSED, Event.POLICY_CHANGED}
    assert set(EVENT_OF.values()) | otherwise == set(Event)
    silent = set(RecordKind) - set(EVENT_OF) - {RecordKind.BUDGET_REACHED}
    for kind in silent:
        assert Announcer(HOOKS)(Draft(kind, NOW, "c", "r", "a", b"{}")) == ()


@pytest.mark.parametrize(
    ("one", "event", "window", "resets", "message"),
    [
        (
            Crossed("stop", "stop|day:2027-01-15", Unit.USD, 4_000_000, 4_200_000, 5_000_000),
            "budget.warned",
            "day",
            True,
            "Budget 'stop': $4.20 of $5.00 used (day).",
        ),
        (
            Crossed("stop", "stop|day:2027-01-14", Unit.USD, 4_000_000, 4_200_000, 5_000_000),
            "budget.warned",
            "day",
            False,
            "Budget 'stop': $4.20 of $5.00 used (day).",
        ),
        (
            Crossed("soft", "soft|24h:x", Unit.REQUESTS, 10, 11, 10),
            "budget.exceeded",
            "24h",
            False,
            "Budget 'soft': 11 of 10 requests used (24h).",
        ),
        (
            Crossed("run", "run|agent=bot|run:r", Unit.TOKENS, 5, 5, 10),
            "budget.warned",
            "run",
            False,
            "Budget 'run': 5 of 10 tokens used (run).",
        ),
    ],
)
def test_a_level_becomes_a_record(
    one: Crossed, event: str, window: str, message: str, *, resets: bool
) -> None:
    (draft,) = Alerts(LIMITS).reached((Settled((one,)),), exchange(), NOW)
    assert (draft.kind, draft.call_id, draft.run_id, draft.agent_id) == (
        RecordKind.BUDGET_REACHED,
        "call-1",
        "run-1",
        "bot",
    )
    body = bodies.read_reached(draft.body)
    assert (body.event, body.window, body.message) == (event, window, message)
    assert (body.resets_us is not None) is resets
    assert (body.used, body.level, body.maximum) == (one.used, one.level, one.maximum)


def test_every_kind_of_result_tells_of_levels() -> None:
    one = Crossed("run", "k", Unit.TOKENS, 5, 5, 10)
    assert crossed((Settled((one,)), Taken((one,)), Expired((), (one,)))) == [one] * 3
    (draft,) = Alerts(LIMITS).reached((Expired((), (one,)),), None, NOW)
    assert (draft.call_id, draft.run_id, draft.agent_id) == (None, None, None)


def test_a_refusal_is_told_by_the_first_call_alone_and_the_same_on_every_run_of_its_batch() -> None:
    alerts = Alerts(LIMITS, Announcer(HOOKS))
    refused = Refused("stop", "stop|day:1", Unit.USD, 5, 5, 0, 1, None)
    assert len(alerts.refused(refused, exchange("one"), NOW)) == 2
    assert alerts.refused(refused, exchange("two"), NOW) == ()
    assert len(alerts.refused(refused, exchange("one"), NOW)) == 2
    tomorrow = msgspec.structs.replace(refused, bound_key="stop|day:2")
    assert len(alerts.refused(tomorrow, exchange("two"), NOW)) == 2


def test_a_refusal_under_a_rolling_limit_is_told_once_for_each_length_of_it() -> None:
    book = LimitBook([Limit("last-day", Scope(agent="*"), window_named("24h"), {Unit.REQUESTS: 1})])
    alerts, hour = Alerts(book, Announcer(HOOKS)), 3_600_000_000

    def told(agent: str, hours: int) -> int:
        call = exchange(f"{agent}-{hours}")
        (bound,) = call.bounds = book.bounds(Subject(agent), NOW + hours * hour)
        refused = Refused("last-day", bound.key, Unit.REQUESTS, 1, 1, 0, 1, bound.resets_us)
        return len(alerts.refused(refused, call, NOW + hours * hour))

    assert [told("bot", hours) for hours in range(48)].count(2) in (2, 3)
    assert [told("other", hours) for hours in range(4)] == [2, 0, 0, 0]


def test_refusals_are_counted_by_limit_and_those_of_envelopes_together() -> None:
    counted: list[tuple[str, str]] = []

    class Counts:
        def budget_event(self, limit: str, event: str) -> None:
            counted.append((limit, event))

    alerts = Alerts(LIMITS, counts=Counts())
    alerts.count_refusal("stop")
    alerts.count_refusal("envelope:run-1")
    alerts.count_downgrade("stop")
    alerts.count((Settled((Crossed("soft", "k", Unit.REQUESTS, 10, 11, 10),)),))
    assert counted == [
        ("stop", "budget.refused"),
        ("envelope", "budget.refused"),
        ("stop", "budget.downgraded"),
        ("soft", "budget.exceeded"),
    ]
