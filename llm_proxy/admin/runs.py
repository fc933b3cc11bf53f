"""Runs as operators list and end them: how each stands, and what is asked of one that is to end."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy import wiring
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.shapes import RunLine
from llm_proxy.admin.shown import run_line
from llm_proxy.admin.when import when
from llm_proxy.archive.listings import RunRow
from llm_proxy.archive.run_filter import RunFilter
from llm_proxy.archive.run_words import TooLong, find_runs
from llm_proxy.archive.search_query import BadSearch
from llm_proxy.config import Config
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs.status import Standing, standings
from llm_proxy.runs.wish import MAX_WHY

_DECISIONS = ("allow", "deny", "ask")
_DIGITS = 18
MAX_BEFORE = 300
MAX_DOLLARS = 1e9


class RunEnding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a run ends, which whoever calls in it is told; `agent` where several used the run's id."""

    why: str
    agent: str | None = None


class RunWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are asked for, as people write it: times as `7d` or a date, money in dollars.

    `before` goes on behind a run of an earlier answer: its `started_us`, a comma, and its id.
    """

    agent: str | None = None
    user: str | None = None
    model: str | None = None
    tool: str | None = None
    decision: str | None = None
    rule: str | None = None
    error: str | None = None
    since: str | None = None
    until: str | None = None
    min_cost: float | None = None
    ended: bool = False
    frozen: bool = False
    before: str | None = None
    words: str | None = None
    """As a search takes them. Whether a run holds them is content: whoever asks must be let read it."""


def run_filter(wish: RunWish, now_us: int) -> RunFilter:
    """Raises `Unclear`."""
    if wish.decision not in (None, *_DECISIONS):
        raise Unclear(f"decision: {wish.decision[:40]!r} is none of {', '.join(_DECISIONS)}.")
    before = None
    if wish.before is not None:
        started, comma, run_id = wish.before.partition(",")
        if not comma or not started.isascii() or not started.isdigit() or len(started) > _DIGITS:
            raise Unclear("before: write a run's started_us, a comma, and its id.")
        before = int(started), run_id
    dollars = wish.min_cost
    return RunFilter(
        agent=wish.agent,
        user=wish.user,
        model=wish.model,
        tool=wish.tool,
        decision=wish.decision,
        rule=wish.rule,
        error=wish.error,
        min_micro_usd=None if dollars is None else round(dollars * 1_000_000),
        ended=wish.ended,
        frozen=wish.frozen,
        before=before,
        words=wish.words or None,
        since_us=when(wish.since, now_us),
        until_us=when(wish.until, now_us),
    )


def run_lines(
    config: Config,
    connection: Connection,
    now_us: int,
    limit: int,
    wish: RunWish | None = None,
    *,
    agent: str | None = None,
) -> list[RunLine]:
    """Runs, the last begun first. Raises `Unclear`."""
    wanted = run_filter(wish or RunWish(agent=agent), now_us)
    try:
        listed = find_runs(connection, wanted, limit)
    except BadSearch as error:
        raise Unclear(f"words: {error}") from None
    except TooLong:
        raise Unclear("Looking for it took too long: choose a later `since`, or name the agent.") from None
    stands = standings(connection, wiring.limits(config), [row.stored for row in listed], now_us)
    return [run_line(row, standing) for row, standing in zip(listed, stands, strict=True)]


def stands(config: Config, connection: Connection, run: RunRow, now_us: int) -> Standing:
    return standings(connection, wiring.limits(config), [run.stored], now_us)[0]


def ending(connection: Connection, run_id: str, wish: RunEnding) -> tuple[RunKey, str]:
    """The run that is meant, and why it ends. Raises `NotFound`, or `Unclear`."""
    why = wish.why.strip()
    if not why or len(why) > MAX_WHY or not why.isprintable():
        raise Unclear(f"why: say it in 1 to {MAX_WHY} characters, all of which print.")
    return find_run(connection, run_id, wish.agent).stored.key, why


def ended(config: Config, connection: Connection, key: RunKey, now_us: int) -> RunLine:
    """The run as it stands once ended; one that was ended before keeps its first reason."""
    run = find_run(connection, key.run_id, key.agent_id)
    return run_line(run, stands(config, connection, run, now_us))
