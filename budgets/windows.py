"""Over what time a limit counts: one small pure class per kind of window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from budgets.rolling import ROLLING, Rolling, rolling_us
from budgets.spans import EPOCH, HOUR_US, MINUTE_US, WindowSpan


class Window(Protocol):
    """A kind of window in its time zone."""

    @property
    def name(self) -> str: ...

    @property
    def per_run(self) -> bool:
        """True where the span is that of a run, so that a limit applies only to calls that have one."""
        ...

    def span(self, now_us: int, run_id: str | None) -> WindowSpan: ...


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute of the clock. No zone's offset has had seconds since 1972, so it is the same everywhere."""

    zone: tzinfo
    name: str = "minute"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        start = now_us - now_us % MINUTE_US
        return WindowSpan(f"minute:{_local(start, UTC):%Y-%m-%dT%H:%M}Z", start + MINUTE_US)


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the zone's clock. The key holds the offset: the hour that DST repeats counts twice."""

    zone: tzinfo
    name: str = "hour"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        local = _local(now_us, self.zone)
        start = now_us - local.minute * MINUTE_US - now_us % MINUTE_US
        offset = local.isoformat()[-6:]
        return WindowSpan(f"hour:{local:%Y-%m-%dT%H}{offset}", start + HOUR_US)


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the zone's calendar: 23 or 25 hours long where clocks change."""

    zone: tzinfo
    name: str = "day"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        today = _local(now_us, self.zone).date()
        return WindowSpan(f"day:{today.isoformat()}", _midnight(today + timedelta(days=1), self.zone))


@dataclass(frozen=True, slots=True)
class Week:
    """An ISO 8601 week: it begins on Monday at 00:00 of the zone."""

    zone: tzinfo
    name: str = "week"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        today = _local(now_us, self.zone).date()
        year, week, weekday = today.isocalendar()
        return WindowSpan(
            f"week:{year:04}-W{week:02}", _midnight(today + timedelta(days=8 - weekday), self.zone)
        )


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the zone's calendar."""

    zone: tzinfo
    name: str = "month"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        today = _local(now_us, self.zone).date()
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        return WindowSpan(f"month:{today:%Y-%m}", _midnight(following, self.zone))


@dataclass(frozen=True, slots=True)
class Run:
    """The whole of one run; it never resets."""

    zone: tzinfo
    name: str = "run"
    per_run: bool = True

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        if run_id is None:
            raise ValueError("a limit with window 'run' was asked about a call that has no run")
        return WindowSpan(f"run:{run_id}", None)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From the first call on, for ever."""

    zone: tzinfo
    name: str = "lifetime"
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        return WindowSpan("lifetime", None)


AT_ONCE = "at once"
"""The window of what is never used up: calls in flight."""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """No time at all: what is held now. It never resets; it empties as calls end."""

    zone: tzinfo
    name: str = AT_ONCE
    per_run: bool = False

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        return WindowSpan(AT_ONCE, None)


WINDOWS: Mapping[str, Callable[[tzinfo], Window]] = {
    "minute": Minute,
    "hour": Hour,
    "day": Day,
    "week": Week,
    "month": Month,
    "run": Run,
    "lifetime": Lifetime,
}


def window_named(name: str, timezone: str = "UTC") -> Window:
    """The window called `name` in an IANA time zone: one of `WINDOWS`, or a rolling one such as `30d`.

    Raises ValueError for an unknown name or zone, and for a rolling window too short or too long.
    """
    kind = AtOnce if name == AT_ONCE else WINDOWS.get(name)
    length_us = None if kind is not None else rolling_us(name)
    if kind is None and length_us is None:
        raise ValueError(f"unknown window {name!r}: use one of {', '.join(WINDOWS)}, or {ROLLING}")
    zone = _zone(timezone)
    if length_us is not None:
        return Rolling(zone, name, length_us)
    assert kind is not None
    return kind(zone)


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # works where no time zone database is installed
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"unknown time zone {name!r}: use an IANA name such as UTC or Europe/Paris"
        ) from None


def ended_us(key: str) -> int | None:
    """When the span that a counter's key ends in is over, in Unix µs: from then on nothing asks for it.

    None for what this can't tell or what is kept for ever: days and longer, runs, lifetimes.
    """
    name, _, start = key.rpartition("|")[2].partition(":")
    try:
        if name == "minute":
            return _read(start) + MINUTE_US
        if name == "hour":
            return _read(start) + HOUR_US
        if (length_us := rolling_us(name)) is not None:
            return Rolling(UTC, name, length_us).leaves_us(_read(start))
    except ValueError:
        return None
    return None


def _read(instant: str) -> int:
    """An instant of a key in Unix µs. Raises ValueError for anything else."""
    read = datetime.fromisoformat(instant)
    if read.tzinfo is None:
        raise ValueError(f"{instant!r} is of no known zone")
    return (read - EPOCH) // timedelta(microseconds=1)


def _local(now_us: int, zone: tzinfo) -> datetime:
    return (EPOCH + timedelta(microseconds=now_us)).astimezone(zone)


def _midnight(day: date, zone: tzinfo) -> int:
    """When `day` begins in `zone`, in Unix µs.

    Where clocks skip midnight, `fold=0` reads 00:00 with the offset before the change, which is the instant
    of the change; where it comes twice, it is the first (PEP 495).
    """
    start = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (start - EPOCH) // timedelta(microseconds=1)
