"""What is asked of the sums: by what to group, since and until when, and of whom. Read from text."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta

import msgspec

from llm_proxy.spend.rollup import DAY_US

TIMES = ("day", "week", "month")
COLUMNS = {
    "agent": "agent_id",
    "team": "team",
    "user": "user_id",
    "run": "run_id",
    "model": "model",
    "target": "target",
    "provider": "provider",
    "tag": "tags",
}
"""Groups that are a column, and which one."""
TOOL = "tool"
TAG_KEY = "tag:"
GROUPS = (*COLUMNS, *TIMES, TOOL)
MOST_GROUPS = 8
MOST_DAYS = 3_660
_AGO = re.compile(r"(\d{1,6})([mhdw])")
_AGO_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BadQuestion(ValueError):
    """It can't be answered as it was put. The message says what to write instead."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Only calls whose columns are these. `tag` is one whole tag, as it was sent."""

    agent: str | None = None
    team: str | None = None
    user: str | None = None
    run: str | None = None
    model: str | None = None
    target: str | None = None
    provider: str | None = None
    tag: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that began from `since_us` on and before `until_us` (Unix µs; None: without that end)."""

    by: tuple[str, ...] = ("agent",)
    since_us: int | None = None
    until_us: int | None = None
    where: Filters = Filters()

    @property
    def by_time(self) -> bool:
        return any(group in TIMES for group in self.by)

    @property
    def by_run(self) -> bool:
        """Whether runs matter, which the daily sums don't know."""
        return "run" in self.by or self.where.run is not None

    @property
    def by_tool(self) -> bool:
        return TOOL in self.by


def groups(text: str) -> tuple[str, ...]:
    """`agent,day` as a tuple. Raises `BadQuestion` for a group that isn't known, or is named twice."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise BadQuestion(f"Nothing to group by: name one or more of {_known()}, with commas between.")
    for group in found:
        key = group.removeprefix(TAG_KEY) if group.startswith(TAG_KEY) else None
        if key == "" or (key is None and group not in GROUPS):
            near = difflib.get_close_matches(group, GROUPS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {_known()}."
            raise BadQuestion(f"Spend can't be grouped by {group[:40]!r}: {hint}")
    if len(set(found)) < len(found) or len(found) > MOST_GROUPS:
        raise BadQuestion(f"Name each group once, and at most {MOST_GROUPS} of them.")
    if "run" in found and TOOL in found:
        raise BadQuestion("Runs and tools can't be grouped by at once: ask for one of them with --by.")
    return found


def moment(text: str, now_us: int) -> int:
    """`7d` (ago), `2026-11-01` (midnight UTC) or an ISO 8601 time (UTC unless it says otherwise), in Unix µs.

    Raises `BadQuestion`.
    """
    text = text.strip()
    if ago := _AGO.fullmatch(text):
        seconds = int(ago[1]) * _AGO_S[ago[2]]
        if seconds > MOST_DAYS * 86_400:
            raise BadQuestion(f"{text!r} is over ten years ago: name a later time.")
        return now_us - seconds * 1_000_000
    try:
        read = datetime.fromisoformat(text)
        if read.tzinfo is None:
            read = read.replace(tzinfo=UTC)
        found = (read - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise BadQuestion(
            f"{text[:40]!r} is no time: write 30m, 24h, 7d or 4w (ago), a date as 2026-11-01, or an ISO 8601 "
            "time as 2026-11-01T08:00:00Z."
        ) from None
    if not 0 <= found <= 2**53:
        raise BadQuestion(f"{text[:40]!r} is too far away: name a time since 1970.")
    return found


def whole_days(question: Question) -> Question:
    """The same over whole days (UTC), where it cuts some in parts."""
    since, until = question.since_us, question.until_us
    return msgspec.structs.replace(
        question,
        since_us=None if since is None else since - since % DAY_US,
        until_us=None if until is None else until + -until % DAY_US,
    )


def asked(
    by: str, since: str | None, until: str | None, where: Filters, now_us: int, *, whole: bool = False
) -> Question:
    """A question as it was written. By tool it is over whole days, and where `whole` says so.

    Raises `BadQuestion`.
    """
    found = Question(
        by=groups(by),
        since_us=None if since is None else moment(since, now_us),
        until_us=None if until is None else moment(until, now_us),
        where=where,
    )
    if found.since_us is not None and found.until_us is not None and found.since_us >= found.until_us:
        raise BadQuestion("The time asked for ends before it begins: --since must lie before --until.")
    if found.by_tool and where.run is not None:
        raise BadQuestion(
            "What tools of one run cost isn't kept apart: leave out --run, or group by other than tool."
        )
    return whole_days(found) if found.by_tool or whole else found


def before(question: Question, now_us: int) -> Question:
    """The same over the time of equal length just before. Raises `BadQuestion` where there is none."""
    if question.since_us is None:
        raise BadQuestion("What to compare with? Name a --since: the time before it is as long.")
    if question.by_time or "run" in question.by:
        raise BadQuestion("A comparison is of two spans of time: leave day, week, month and run out of --by.")
    length = (now_us if question.until_us is None else question.until_us) - question.since_us
    if length <= 0:
        raise BadQuestion("The time asked for hasn't begun: --since must lie in the past.")
    since = max(0, question.since_us - length)
    return msgspec.structs.replace(question, since_us=since, until_us=question.since_us)


def _known() -> str:
    return f"{', '.join(GROUPS)} or tag:KEY"
