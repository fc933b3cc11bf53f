"""What a run may use, as it was opened: a limit of its own over the run and all the runs below it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from budgets import Bound, Limit, Scope, Unit, window_named
from budgets.amounts import MICRO
from budgets.scopes import joined, quoted
from llm_proxy.identity.lineage import ENVELOPE

_RUN = window_named("run")


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Maxima by unit, of usd in micro-dollars, and the only tools (names or globs), None for any."""

    maximum: dict[Unit, int] = {}
    tools: tuple[str, ...] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode


def write(envelope: Envelope) -> str:
    """As it is stored; empty where it binds nothing."""
    return _encode(envelope).decode() if envelope != Envelope() else ""


def read(stored: str) -> Envelope:
    """Raises `msgspec.DecodeError` for what can't have been stored by us: such a run must not run unbound."""
    return _decode(stored) if stored else Envelope()


def bound_of(agent: str, run: str, envelope: Envelope) -> Bound | None:
    """The envelope as it binds calls, keyed as a limit of window `run` is; None where it has no maximum."""
    if not envelope.maximum:
        return None
    limit = Limit(f"{ENVELOPE}{run}", Scope(), _RUN, envelope.maximum)
    span = _RUN.span(0, quoted(run))
    return Bound(limit, joined(f"{quoted(limit.id)}|agent={quoted(agent)}", span.key), None)


def shown(unit: Unit, amount: int) -> float | int:
    """An amount as JSON has it: money in dollars."""
    return amount / MICRO if unit is Unit.USD else amount


def amounts(figures: Mapping[Unit, int]) -> dict[str, float | int]:
    """Amounts by the unit's name, money in dollars."""
    return {unit.value: shown(unit, amount) for unit, amount in figures.items()}


def figure(unit: Unit, amount: int) -> str:
    """An amount as people read it, money in dollars to the micro-dollar."""
    return f"${amount / MICRO:,.6f}" if unit is Unit.USD else f"{amount:,}"


def told(unit: Unit, amount: int) -> str:
    """An amount with its unit: `$0.250000`, `3 requests`."""
    return figure(unit, amount) if unit is Unit.USD else f"{amount:,} {unit.value}"


def told_all(figures: Mapping[Unit, int]) -> str:
    return ", ".join(told(unit, amount) for unit, amount in figures.items())
