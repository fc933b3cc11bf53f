"""Whom a limit counts just now, as far as only the ledger knows: users, tags and keys that have a counter."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from sqlalchemy import Connection, or_, select

from budgets import Bound, Limit, LimitBook, Subject
from budgets.scopes import quoted
from budgets.sql_tables import TABLES

MOST = 1_000
"""Of one limit: those with the most used and held."""
_C = TABLES.counters.c
_AFTER = chr(ord("|") + 1)


def found_bounds(connection: Connection, limit: Limit, now_us: int) -> list[Bound]:
    """The limit as it binds each of those whom it counts in the span that is now; at most `MOST`."""
    span = limit.window.span(now_us, None)
    buckets = span.buckets
    tails = (span.key,) if buckets is None else (*buckets.earlier, span.key, *buckets.later)
    book, prefix = LimitBook([limit]), quoted(limit.id)
    found: dict[str, Bound] = {}
    for key in _keys(connection, limit, f"{prefix}|", tails):
        head, _, tail = key.rpartition("|")
        if tail not in tails or not head.startswith(prefix):
            continue
        who = who_of(head.removeprefix(prefix))
        bounds = book.bounds(_subject(who), now_us)
        alike = next((bound for bound in bounds if bound.key.rpartition("|")[0] == head), None)
        # What was cut to fit a key can't be read back, and stands for itself.
        bound = alike or Bound(limit, key, span.resets_us)
        found[bound.key] = bound
    return list(found.values())


def who_of(head: str) -> dict[str, str]:
    """Whom a counter counts, by name: `|agent=triage-bot|tag=prod` of its key."""
    parts = (part.partition("=") for part in head.split("|") if part)
    return {name: unquote(value) for name, _, value in parts}


def _keys(connection: Connection, limit: Limit, prefix: str, tails: tuple[str, ...]) -> list[str]:
    """Keys that begin with `prefix` and end in one of `tails`, the fullest first."""
    fullest = next(iter(limit.maximum)).field
    ends = or_(*(_C.key.endswith(f"|{tail}", autoescape=True) for tail in tails))
    query = select(_C.key).where(_C.key.startswith(prefix, autoescape=True), ends)
    if connection.dialect.name == "sqlite":
        # In SQLite's order of keys they are one stretch of the index.
        query = query.where(_C.key >= prefix, _C.key < prefix[:-1] + _AFTER)
    query = query.order_by((_C[f"used_{fullest}"] + _C[f"held_{fullest}"]).desc(), _C.key).limit(MOST)
    return list(connection.execute(query).scalars())


def _subject(who: Mapping[str, str]) -> Subject:
    return Subject(
        agent=who.get("agent", ""),
        team=who.get("team"),
        user=who.get("user"),
        key=who.get("key"),
        model=who.get("model"),
        tags=(who["tag"],) if "tag" in who else (),
        user_verified="agent" not in who,
    )
