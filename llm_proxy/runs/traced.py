"""Runs by the traces of their callers: a run that begins in another's trace is linked to that one.

The link is for those who read the records. It charges nobody and binds nothing: traces are the callers' word.
"""

from __future__ import annotations

from collections import OrderedDict

from llm_proxy.exchange import Exchange
from llm_proxy.records.audit_rows import TraceRow
from llm_proxy.records.prefixes import run_above
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs.lookup import RunLookup

_REMEMBERED = 10_000


class Traces:
    """One per worker; used from the event loop only."""

    def __init__(self, lookup: RunLookup) -> None:
        self._lookup = lookup
        self._seen: OrderedDict[tuple[bytes, RunKey], None] = OrderedDict()

    async def above(self, key: RunKey, traceparent: str) -> str:
        """The run in whose trace `key` begins, empty where that is none or itself."""
        if not traceparent:
            return ""
        trace, span = _ids(traceparent)
        found = await self._lookup.ask(lambda connection: run_above(connection, trace, span, key))
        return found.run_id if found is not None else ""

    def note(self, exchange: Exchange, key: RunKey) -> None:
        """Has the call's opening say that its run was seen in its trace, unless that was said before."""
        trace, _ = _ids(exchange.hints.traceparent)
        if (trace, key) in self._seen:
            return
        self._seen[trace, key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        exchange.traced = TraceRow(trace, key.agent_id, key.run_id, exchange.started_us)


def _ids(traceparent: str) -> tuple[bytes, bytes]:
    """Trace and span of a valid traceparent."""
    _, trace, span, _ = traceparent.split("-")
    return bytes.fromhex(trace), bytes.fromhex(span)
