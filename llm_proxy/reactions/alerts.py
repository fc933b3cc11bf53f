"""What is told when a limit is reached or refuses: records and events, written with what brought it about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import structs

from budgets import Bound, Crossed, Expired, Limit, LimitBook, Refused, Result, Settled, Taken, Unit
from llm_proxy.config.choices import Event
from llm_proxy.exchange import Exchange
from llm_proxy.identity.lineage import ENVELOPE
from llm_proxy.reactions.events import NOBODY, Announcer
from llm_proxy.reactions.refusal import exceeded, shown
from llm_proxy.records import bodies
from llm_proxy.records.evidence import DeliveryRow, Draft, Evidence, RecordKind

DOWNGRADED = "budget.downgraded"
"""Counted beside the events: a limit had a cheaper model asked."""
_REMEMBERED = 10_000


class Counts(Protocol):
    """Where events are counted."""

    def budget_event(self, limit: str, event: str) -> None: ...


class Alerts:
    """One per worker. `reached` and `refused` are asked in the writer's thread too, and change nothing there
    but the memory of which refusals were told."""

    def __init__(self, book: LimitBook, announcer: Announcer = NOBODY, counts: Counts | None = None) -> None:
        self._limits = {(limit.id, unit): limit for limit in book.limits for unit in limit.maximum}
        self._announcer = announcer
        self._counts = counts
        self._told: dict[str, str] = {}

    def reached(self, results: Iterable[Result], exchange: Exchange | None, now_us: int) -> tuple[Draft, ...]:
        """A record for each level that was reached. `exchange` is the call that did it, where one did."""
        crossings = crossed(results)
        if not crossings:
            return ()
        caller = exchange.caller if exchange is not None else None
        call_id = exchange.id if exchange is not None else None
        run_id = exchange.run_id if exchange is not None else None
        agent_id = caller.agent.id if caller is not None else None
        return tuple(
            Draft(RecordKind.BUDGET_REACHED, now_us, call_id, run_id, agent_id, bodies.encode(body))
            for body in (self._body(one, now_us) for one in crossings)
        )

    def refused(self, refused: Refused, exchange: Exchange, now_us: int) -> tuple[DeliveryRow, ...]:
        """Deliveries of `budget.refused`, for the first call that a limit refuses within a span."""
        if not self._announcer.wants(Event.BUDGET_REFUSED):
            return ()
        bound = bound_of(refused, exchange.bounds)
        if not self._first(_told_once(refused, bound), exchange.id):
            return ()
        caller = exchange.caller
        data = {
            "limit": refused.limit_id,
            "counter": refused.bound_key,
            "unit": refused.unit.value,
            "used": refused.used,
            "held": refused.held,
            "asked": refused.asked,
            "maximum": refused.maximum,
            "window": bound.limit.window.name if bound is not None else "",
            "resets_us": refused.resets_us,
            "message": exceeded(refused, bound, now_us).message,
            "agent_id": caller.agent.id if caller is not None else "",
            "run_id": exchange.run_id,
            "call_id": exchange.id,
        }
        return self._announcer.deliveries(Event.BUDGET_REFUSED, data, now_us)

    def count(self, results: Iterable[Result]) -> None:
        """Counts what was committed; on the event loop."""
        if self._counts is None:
            return
        for one in crossed(results):
            self._counts.budget_event(one.limit_id, self._event(one))

    def count_refusal(self, limit_id: str) -> None:
        if self._counts is not None:
            self._counts.budget_event(_bounded(limit_id), Event.BUDGET_REFUSED)

    def count_downgrade(self, limit_id: str) -> None:
        if self._counts is not None:
            self._counts.budget_event(_bounded(limit_id), DOWNGRADED)

    def _first(self, key: str, call_id: str) -> bool:
        """Whether this call is the one that tells. A batch that is run again gets the same answer."""
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        return self._told.setdefault(key, call_id) == call_id

    def _body(self, one: Crossed, now_us: int) -> bodies.Reached:
        limit = self._limits.get((one.limit_id, one.unit))
        window = limit.window.name if limit is not None else ""
        used, most = shown(one.unit, one.used), shown(one.unit, one.maximum)
        unit = "" if one.unit is Unit.USD else f" {one.unit.value}"
        over = f" ({window})" if window else ""
        return bodies.Reached(
            event=self._event(one),
            limit=one.limit_id,
            counter=one.bound_key,
            unit=one.unit.value,
            level=one.level,
            used=one.used,
            maximum=one.maximum,
            window=window,
            resets_us=_resets(limit, one.bound_key, now_us),
            message=f"Budget {one.limit_id!r}: {used} of {most}{unit} used{over}.",
        )

    def _event(self, one: Crossed) -> Event:
        limit = self._limits.get((one.limit_id, one.unit))
        only_warns = limit is not None and not limit.blocks
        return Event.BUDGET_EXCEEDED if only_warns and one.level >= one.maximum else Event.BUDGET_WARNED


SILENT = Alerts(LimitBook(()))
"""Where there are no limits and nobody is told."""


def crossed(results: Iterable[Result]) -> list[Crossed]:
    """The levels that were reached."""
    return [one for r in results if isinstance(r, Settled | Taken | Expired) for one in r.crossed]


def with_records(evidence: Evidence, drafts: tuple[Draft, ...]) -> Evidence:
    return structs.replace(evidence, records=(*evidence.records, *drafts)) if drafts else evidence


def bound_of(refused: Refused, bounds: Sequence[Bound]) -> Bound | None:
    """The limit that refused, as it bound the call."""
    same = [bound for bound in bounds if bound.limit.id == refused.limit_id]
    return next((b for b in same if b.key == refused.bound_key), same[0] if same else None)


def _told_once(refused: Refused, bound: Bound | None) -> str:
    """What a refusal is told once for: a counter, or under a rolling window any time of its length."""
    buckets = bound.buckets if bound is not None else None
    if buckets is None:
        return refused.bound_key
    turn = buckets.start_us // (len(buckets.earlier) * buckets.bucket_us)
    return f"{buckets.head}{buckets.window}:{turn}"


def _bounded(limit_id: str) -> str:
    """A label: limits of the config by name, and what runs bring along together."""
    return ENVELOPE.rstrip(":") if limit_id.startswith(ENVELOPE) else limit_id


def _resets(limit: Limit | None, key: str, now_us: int) -> int | None:
    """When the span of a counter ends; None where it doesn't, or has ended by now."""
    if limit is None or limit.window.per_run:
        return None
    span = limit.window.span(now_us, None)
    if span.buckets is not None:  # what a rolling window counts leaves it bit by bit
        return None
    return span.resets_us if key.endswith(f"|{span.key}") else None
