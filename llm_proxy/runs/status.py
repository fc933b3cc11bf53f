"""How a run stands: whether it may go on, and what is used and left of what binds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Connection

from budgets import Bound, Counter, LimitBook, OnExceed, SqlLedger, Subject, Unit
from llm_proxy.identity.lineage import ENVELOPE
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs import rows
from llm_proxy.runs.envelope import amounts, bound_of, read, shown, told
from llm_proxy.runs.exhausted import remainder
from llm_proxy.runs.placed import iso
from llm_proxy.runs.rows import StoredRun
from llm_proxy.runs.wish import Trigger


class RunStatus(StrEnum):
    OPEN = "open"
    EXHAUSTED = "exhausted"
    """Nothing is left of one of the units that bind it."""
    EXPIRED = "expired"
    ENDED = "ended"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of what binds a run: an envelope, its own or of a run above, or a limit per run.

    Money is in dollars. `run_id` is the run whose counter this is.
    """

    limit: str
    run_id: str
    agent_id: str
    unit: str
    used: float | int
    held: float | int
    left: float | int
    maximum: float | int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all that binds it."""

    run: StoredRun
    status: RunStatus
    why: str
    """Why it's not open, empty where it is."""
    envelope: dict[str, Any] | None
    """As it was opened, None for a run that nobody opened."""
    trigger: Trigger | None
    left: dict[str, float | int]
    """By unit, of whatever has least of it."""
    uses: tuple[Use, ...]
    expires_us: int | None
    """When it or a run above it expires, whichever is first."""


Binding = tuple[StoredRun, Bound]
"""What binds a run, and whose it is: its own, or that of a run above."""


def standing(connection: Connection, book: LimitBook, key: RunKey, now_us: int) -> Standing | None:
    """How the run stands; None where it isn't there."""
    run = rows.find(connection, key)
    return None if run is None else standings(connection, book, [run], now_us)[0]


def standings(
    connection: Connection, book: LimitBook, listed: Sequence[StoredRun], now_us: int
) -> list[Standing]:
    """How each of `listed` stands, in their order: their counters are read at once."""
    known = {run.key: run for run in listed}
    chains = [rows.chain(connection, run.key, known) for run in listed]
    bindings = [_binding(chain, book, now_us) for chain in chains]
    keys = {bound.key for binding in bindings for _, bound in binding}
    counters = SqlLedger(connection.dialect).peek(connection, keys)
    return [
        _standing(chain, binding, counters, now_us) for chain, binding in zip(chains, bindings, strict=True)
    ]


def _standing(
    found: Sequence[StoredRun], binding: Sequence[Binding], counters: Mapping[str, Counter], now_us: int
) -> Standing:
    run = found[0]
    status, why = _status(found, binding, counters, now_us)
    return Standing(
        run=run,
        status=status,
        why=why,
        envelope=_told(run),
        trigger=msgspec.json.decode(run.trigger, type=Trigger) if run.trigger else None,
        left=amounts(_least(binding, counters)),
        uses=tuple([use for whose, bound in binding for use in _uses(whose, bound, counters)]),
        expires_us=min([row.expires_us for row in found if row.expires_us is not None], default=None),
    )


def _binding(found: Sequence[StoredRun], book: LimitBook, now_us: int) -> list[Binding]:
    """Envelopes and limits per run, of the run itself and of each above it."""
    binding: list[Binding] = []
    for run in found:
        envelope = bound_of(run.agent_id, run.run_id, read(run.envelope))
        if envelope is not None:
            binding.append((run, envelope))
        subject = Subject(agent=run.agent_id, team=run.team or None, user=run.user_id or None, run=run.run_id)
        bounds = book.bounds(subject, now_us)
        binding += [(run, bound) for bound in bounds if bound.limit.window.per_run]
    return binding


def _status(
    found: Sequence[StoredRun], binding: Sequence[Binding], counters: Mapping[str, Counter], now_us: int
) -> tuple[RunStatus, str]:
    own = found[0]
    for run in found:
        whose = "" if run is own else f"run {run.run_id!r} above it: "
        if run.ended_us is not None:
            return RunStatus.ENDED, f"{whose}{run.ended_why}"
        if run.expires_us is not None and run.expires_us <= now_us:
            return RunStatus.EXPIRED, f"{whose}expired at {iso(run.expires_us)}"
    for _, bound in binding:
        if bound.limit.on_exceed is not OnExceed.BLOCK:
            continue
        for unit, most in bound.limit.maximum.items():
            counter = counters.get(bound.key)
            if most and counter is not None and counter.used.get(unit) >= most:
                return RunStatus.EXHAUSTED, f"all {told(unit, most)} of {_named(bound)} are used up"
    return RunStatus.OPEN, ""


def _named(bound: Bound) -> str:
    id_ = bound.limit.id
    if id_.startswith(ENVELOPE):
        return f"the envelope of run {id_.removeprefix(ENVELOPE)!r}"
    return f"limit {id_!r}"


def _least(binding: Sequence[Binding], counters: Mapping[str, Counter]) -> dict[Unit, int]:
    found: dict[Unit, int] = {}
    for _, bound in binding:
        if bound.limit.on_exceed is OnExceed.BLOCK:
            for unit, left in remainder(bound.limit, counters.get(bound.key, Counter())).items():
                found[unit] = min(left, found.get(unit, left))
    return {unit: found[unit] for unit in Unit if unit in found}


def _uses(whose: StoredRun, bound: Bound, counters: Mapping[str, Counter]) -> list[Use]:
    counter = counters.get(bound.key, Counter())
    left = remainder(bound.limit, counter)
    return [
        Use(
            limit=bound.limit.id,
            agent_id=whose.agent_id,
            run_id=whose.run_id,
            unit=unit.value,
            used=shown(unit, counter.used.get(unit)),
            held=shown(unit, counter.held.get(unit)),
            left=shown(unit, left[unit]),
            maximum=shown(unit, most),
        )
        for unit, most in bound.limit.maximum.items()
    ]


def _told(run: StoredRun) -> dict[str, Any] | None:
    """The envelope as it was asked for; None where nobody opened the run."""
    if run.expires_us is None:
        return None
    envelope = read(run.envelope)
    told: dict[str, Any] = {
        **amounts(envelope.maximum),
        "expires_s": (run.expires_us - run.started_us) // 1_000_000,
    }
    return told if envelope.tools is None else told | {"tools": list(envelope.tools)}
