"""Whether the books agree, as operators are told it."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.shown import maybe_iso, usd
from llm_proxy.admin.when import when
from llm_proxy.spend.drift import Drift, Reconciled
from llm_proxy.spend.reconcile import Progress, reconcile
from llm_proxy.spend.rollup import DAY_US

_NOTHING = Reconciled(
    drifts=(), drift_count=0, calls=0, open_calls=0, micro_usd=0, tokens=0, days=0, counters=0, holds=0
)


class ReconcileShown(msgspec.Struct, frozen=True, kw_only=True):
    """`balanced` says whether no two books disagree; `drifts` has the first of them.

    `counters` and `holds` are null where a time was asked for: the ledger counts from its beginning.
    """

    balanced: bool
    since_us: int | None
    since_at: str | None
    calls: int
    """That ended."""
    open_calls: int
    tokens: int
    cost_usd: float
    cost_micro_usd: int
    days: int
    counters: int | None
    holds: int | None
    drift_count: int
    drifts: tuple[Drift, ...]


def reconciled(
    connection: Connection | None, since: str | None, now_us: int, progress: Progress | None = None
) -> ReconcileShown:
    """Compares calls that began on the day (UTC) of `since` or later, or all. Raises `Unclear`."""
    since_us = when(since, now_us)
    if since_us is not None:
        since_us -= since_us % DAY_US
    if connection is None:
        found = _NOTHING
    else:
        found = reconcile(connection, since_us, now_us, progress or (lambda _done, _all: None))
    return ReconcileShown(
        balanced=not found.drift_count,
        since_us=since_us,
        since_at=maybe_iso(since_us),
        calls=found.calls,
        open_calls=found.open_calls,
        tokens=found.tokens,
        cost_usd=usd(found.micro_usd),
        cost_micro_usd=found.micro_usd,
        days=found.days,
        counters=found.counters,
        holds=found.holds,
        drift_count=found.drift_count,
        drifts=found.drifts,
    )
