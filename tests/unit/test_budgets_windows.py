from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import WINDOWS, window_named

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"]
CALENDAR = ["minute", "hour", "day", "week", "month"]


def us(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("window", "key", "resets"),
    [
        ("minute", "minute:2026-12-31T23:59Z", "2027-01-01T00:00:00"),
        ("hour", "hour:2026-12-31T23+00:00", "2027-01-01T00:00:00"),
        ("day", "day:2026-12-31", "2027-01-01T00:00:00"),
        ("week", "week:2026-W53", "2027-01-04T00:00:00"),
        ("month", "month:2026-12", "2027-01-01T00:00:00"),
    ],
)
def test_calendar_windows_at_the_end_of_a_year(window: str, key: str, resets: str) -> None:
    span = window_named(window).span(us("2026-12-31T23:59:30") + 7, None)
    assert (span.key, span.resets_us) == (key, us(resets))


def test_days_follow_the_clocks_of_their_zone() -> None:
    day = window_named("day", "Europe/Berlin")
    for start, hours in [
        ("2026-03-29T00:00:00", 23),
        ("2026-10-25T00:00:00", 25),
        ("2026-05-01T00:00:00", 24),
    ]:
        now = us(start, "Europe/Berlin")
        span = day.span(now, None)
        assert span.key == f"day:{start[:10]}"
        assert span.resets_us == now + hours * 3600 * 1_000_000
        assert day.span(now - 1, None).resets_us == now


@pytest.mark.parametrize(
    ("zone", "before", "first"),
    [
        # Clocks went from 23:59:59 to 01:00, so that the day began at 01:00.
        ("Africa/Cairo", "2026-04-23", "2026-04-24T01:00:00"),
        # Clocks went back from 01:00 to 00:00: midnight came twice, and the day began at the first.
        ("America/Havana", "2025-11-01", "2025-11-02T00:00:00"),
        # The whole of 30 December was left out.
        ("Pacific/Apia", "2011-12-29", "2011-12-31T00:00:00"),
    ],
)
def test_a_midnight_that_is_skipped_or_comes_twice(zone: str, before: str, first: str) -> None:
    day = window_named("day", zone)
    start = us(first, zone)
    assert day.span(start - 1, None).key == f"day:{before}"
    assert day.span(start - 1, None).resets_us == start
    assert day.span(start, None).key == f"day:{first[:10]}"


def test_the_hour_that_comes_twice_counts_twice() -> None:
    hour = window_named("hour", "Europe/Berlin")
    first = us("2026-10-25T00:30:00")  # 02:30 in summer time
    spans = [hour.span(first + n * 3600 * 1_000_000, None) for n in range(2)]
    assert [span.key for span in spans] == ["hour:2026-10-25T02+02:00", "hour:2026-10-25T02+01:00"]
    assert spans[0].resets_us == us("2026-10-25T01:00:00")


def test_hours_begin_with_the_zones_own() -> None:
    span = window_named("hour", "Asia/Kolkata").span(us("2026-05-01T10:20:00", "Asia/Kolkata"), None)
    assert span.resets_us == us("2026-05-01T11:00:00", "Asia/Kolkata")


def test_weeks_begin_on_monday() -> None:
    week = window_named("week", "America/New_York")
    monday = us("2026-11-02T00:00:00", "America/New_York")
    assert week.span(monday - 1, None).key == "week:2026-W44"
    assert week.span(monday, None).key == "week:2026-W45"
    assert week.span(monday, None).resets_us == us("2026-11-09T00:00:00", "America/New_York")


def test_runs_and_lifetimes_never_reset() -> None:
    assert window_named("run").span(0, "r1").key == "run:r1"
    assert window_named("run").span(0, "r1").resets_us is None
    assert window_named("lifetime").span(0, None).resets_us is None
    with pytest.raises(ValueError, match="no run"):
        window_named("run").span(0, None)


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), st.integers(0, 4_000_000_000_000_000))
def test_a_span_holds_to_its_last_microsecond_and_not_beyond(name: str, zone: str, extra: int) -> None:
    window = window_named(name, zone)
    now = us("2000-01-01T00:00:00") + extra % (40 * 365 * 86_400 * 1_000_000)
    span = window.span(now, None)
    assert span.resets_us is not None
    assert span.resets_us > now
    assert window.span(span.resets_us - 1, None) == span
    assert window.span(span.resets_us, None).key != span.key
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=span.resets_us)
    if name in ("day", "week", "month") and zone != "America/Havana":
        assert local.astimezone(ZoneInfo(zone)).strftime("%H:%M:%S") == "00:00:00"


def test_an_unknown_window_or_zone_is_an_error_that_says_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"'fortnight': use one of minute, hour, day.*a rolling window such"):
        window_named("fortnight")
    for zone in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="unknown time zone"):
            window_named("day", zone)


def test_every_window_has_the_name_it_is_registered_under() -> None:
    assert [kind(UTC).name for kind in WINDOWS.values()] == list(WINDOWS)
    assert [name for name, kind in WINDOWS.items() if kind(UTC).per_run] == ["run"]
