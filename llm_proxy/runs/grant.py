"""Whether an envelope may be granted: never one wider than the agent's own limits, nor than what is above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from budgets import Bound, Counter, OnExceed, Unit
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.lineage import ENVELOPE, Lineage
from llm_proxy.identity.names import NameSet
from llm_proxy.runs.envelope import Envelope, told
from llm_proxy.runs.exhausted import remainder


def within_limits(envelope: Envelope, bounds: Iterable[Bound]) -> None:
    """Raises `ProxyError(policy_denied)`, which names a limit that blocks and allows less in its window."""
    for bound in bounds:
        limit = bound.limit
        if limit.on_exceed is not OnExceed.BLOCK:
            continue
        for unit, most in limit.maximum.items():
            asked = envelope.maximum.get(unit)
            if asked is not None and asked > most:
                raise _wider(
                    f"{told(unit, asked)} is wider than limit {limit.id!r}, which allows {told(unit, most)} "
                    f"({limit.window.name})",
                    unit,
                )


def within_parents(envelope: Envelope, above: Lineage, counters: Mapping[str, Counter]) -> None:
    """Raises `ProxyError(policy_denied)` where an envelope above has less left than this one asks for.

    Of calls at once all that the envelope above allows is left, since they end.
    """
    for bound in above.envelopes:
        left = remainder(bound.limit, counters.get(bound.key, Counter()))
        if Unit.CONCURRENCY in left:
            left[Unit.CONCURRENCY] = bound.limit.maximum[Unit.CONCURRENCY]
        for unit, most in left.items():
            asked = envelope.maximum.get(unit)
            if asked is not None and asked > most:
                run = bound.limit.id.removeprefix(ENVELOPE)
                raise _wider(
                    f"{told(unit, asked)} is wider than what is left of the envelope of run {run!r} above "
                    f"it: {told(unit, most)}",
                    unit,
                )


def within_tools(envelope: Envelope, allowed: Sequence[tuple[NameSet, str]]) -> None:
    """Raises `ProxyError(policy_denied)` for a tool that one of `allowed` (the set, and whose it is) lacks.

    A glob fits where it fits as text: what a set's stars match of its stars they match of all it stands for.
    """
    for tool in envelope.tools or ():
        for names, whose in allowed:
            if tool not in names:
                raise denied(
                    f"The envelope's tool {tool[:80]!r} is not among those of {whose}: leave it out.",
                    "envelope.tools",
                )


def _wider(what: str, unit: Unit) -> ProxyError:
    said = f"The envelope's {what}. Ask for less; a wider one can't be granted."
    return denied(said, f"envelope.{unit.value}")


def denied(message: str, param: str) -> ProxyError:
    """What can't be granted; `param` is the field that asks for it."""
    return ProxyError(Kind.POLICY_DENIED, message, param=param, retryable=False)
