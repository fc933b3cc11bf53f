"""The export as operators see it: how far it is, what was refused, and sending spans again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping

import msgspec
from sqlalchemy import Connection, Engine

from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.admin.when import when
from llm_proxy.archive.run_facts import RunTrees
from llm_proxy.archive.told import items_of
from llm_proxy.archive.unsent import (
    Chosen,
    backlog,
    chosen_records,
    count_letters,
    exporter,
    forget_letter,
    letters,
)
from llm_proxy.config import Config
from llm_proxy.exporting import span_settings, transport
from llm_proxy.records.times import iso
from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.resend import Resender, Resent

_AT_ONCE = 16
"""Calls whose content is in memory at the same time."""
_SHOWN = 100
"""Refused spans that an answer names."""


class DeadLetterLine(msgspec.Struct, frozen=True, kw_only=True):
    """A span that the backend would not take whole, and what it said. `call_id` is empty for a run's own."""

    id: str
    call_id: str
    run_id: str
    agent_id: str
    at_us: int
    at: str
    reason: str


class TelemetryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the export stands, by the store. `unsent` counts records; not all of them become spans."""

    endpoint: str
    """Empty: the export is off."""
    protocol: str
    exporter: str
    """The writer whose process exports now; empty where none does."""
    unsent: int
    oldest_unsent_us: int | None
    oldest_unsent_at: str | None
    lag_s: float
    """Age of the oldest unsent record, 0 where there is none."""
    dead_letter_count: int
    dead_letters: tuple[DeadLetterLine, ...]
    """The newest ones."""


class ReplayWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send again. `since` is 24h, 7d, a date or an ISO 8601 time. One of the last three is needed."""

    agent: str | None = None
    run: str | None = None
    since: str | None = None
    dead_letters: bool = False


class RefusedSpanLine(msgspec.Struct, frozen=True):
    """A span that the backend refused. `id` as that of a dead letter."""

    id: str
    span: str
    reason: str


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent again, under the same ids as before."""

    endpoint: str
    records: int
    """Calls that ended, runs that began, and what befell runs."""
    spans: int
    refused: int
    refused_spans: tuple[RefusedSpanLine, ...]
    """The first of them."""
    unsent: str
    """Why the rest was not sent; empty where all was."""

    @property
    def well(self) -> bool:
        return not (self.refused or self.unsent)


def telemetry_status(
    config: Config, connection: Connection | None, limit: int, now_us: int
) -> TelemetryStatus:
    """With at most `limit` dead letters."""
    waiting = backlog(connection) if connection is not None else None
    oldest = waiting.oldest_us if waiting else None
    found = letters(connection, limit) if connection is not None else []
    return TelemetryStatus(
        endpoint=_endpoint(config),
        protocol=config.telemetry.protocol.value,
        exporter=exporter(connection, now_us) if connection is not None else "",
        unsent=waiting.count if waiting else 0,
        oldest_unsent_us=oldest,
        oldest_unsent_at=maybe_iso(oldest),
        lag_s=0.0 if oldest is None else max(now_us - oldest, 0) / 1e6,
        dead_letter_count=count_letters(connection) if connection is not None else 0,
        dead_letters=tuple(
            DeadLetterLine(
                id=letter.id,
                call_id="" if letter.id.startswith("run:") else letter.id,
                run_id=letter.run_id,
                agent_id=letter.agent_id,
                at_us=letter.at_us,
                at=iso(letter.at_us),
                reason=letter.reason,
            )
            for letter in found
        ),
    )


def chosen(wish: ReplayWish, now_us: int) -> Chosen:
    """Raises `Unclear`."""
    if wish.run is None and wish.since is None and not wish.dead_letters:
        raise Unclear("Say what to send again: a run, since when, or the dead letters.")
    since_us = when(wish.since, now_us)
    return Chosen(run=wish.run, agent=wish.agent, since_us=since_us, dead_letters=wish.dead_letters)


def replay(
    config: Config,
    engine: Engine,
    wish: ReplayWish,
    now_us: int,
    environ: Mapping[str, str],
    most_s: float = float("inf"),
) -> Replayed:
    """Sends for at most about `most_s` seconds. A dead letter whose spans are taken now is one no more.

    Raises `Unclear`, and `NotFound` where there is nothing of that.
    """
    if config.telemetry.otlp_endpoint is None:
        raise Unclear("The export is off: set telemetry.otlp_endpoint in the config.")
    wanted = chosen(wish, now_us)
    sender = transport(config, environ)
    settled: list[Item] = []
    until = time.monotonic() + most_s
    try:
        with engine.connect() as connection:
            resender = Resender(sender, span_settings(config), random=random.random, sent=settled.append)
            told = resender.send(_batches(connection, wanted, until))
    finally:
        sender.close()
    if not told.items and not told.unsent and not wish.dead_letters:
        raise NotFound(f"Nothing is recorded of {_named(wish)}.")
    if not told.unsent and time.monotonic() >= until:
        told.unsent = f"it took longer than {most_s:g} s: choose less"
    if wish.dead_letters:
        _forget(engine, settled)
    return _replayed(config, told)


def _batches(connection: Connection, wanted: Chosen, until: float) -> Iterator[list[Item]]:
    trees = RunTrees()
    for rows in chosen_records(connection, wanted):
        for start in range(0, len(rows), _AT_ONCE):
            if time.monotonic() >= until:
                return
            yield items_of(connection, rows[start : start + _AT_ONCE], trees)


def _forget(engine: Engine, items: list[Item]) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for item in items:
            forget_letter(connection, item.id)


def _replayed(config: Config, told: Resent) -> Replayed:
    return Replayed(
        endpoint=_endpoint(config),
        records=told.items,
        spans=told.spans,
        refused=len(told.refused),
        refused_spans=tuple(RefusedSpanLine(r.id, r.span, r.reason) for r in told.refused[:_SHOWN]),
        unsent=told.unsent,
    )


def _named(wish: ReplayWish) -> str:
    told = [f"run {wish.run!r}"] if wish.run is not None else []
    told += [f"agent {wish.agent!r}"] if wish.agent is not None else []
    told += [f"calls since {wish.since}"] if wish.since is not None else []
    return ", ".join(told)


def _endpoint(config: Config) -> str:
    """Without what stands before an `@`."""
    endpoint = config.telemetry.otlp_endpoint or ""
    scheme, found, rest = endpoint.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}" if found else endpoint.rpartition("@")[2]
