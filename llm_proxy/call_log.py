"""One line in the log for each call that ended: ids, outcome, time, tokens and money; nothing that was said.

Lines are written by a thread, some at a time, so that no call waits for whoever reads the log. The record
is in the store: a line that is lost with a killed process is no loss of evidence.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from llm_proxy.exchange import Exchange
from llm_proxy.telemetry.ids import parent_of, run_trace_id
from llm_proxy.telemetry.items import RunRef

EVERY_S = 0.25
MOST_LINES = 20_000
"""Lines that wait; past that, lines are left out and counted."""

_encode = msgspec.json.Encoder().encode


class CallLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times are milliseconds. `model` is empty where none of the config's was asked for."""

    event: str
    level: str
    timestamp: str
    call_id: str
    run_id: str
    agent_id: str
    trace_id: str
    status: str
    dialect: str
    model: str = ""
    target: str = ""
    attempts: int = 0
    total_ms: float = 0.0
    overhead_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro_usd: int = 0
    tool_calls: int = 0
    denied: int = 0
    error: str = ""


class CallIds:
    """The ids of a call for lines that are logged on its way, as far as they are known by then.

    A connection that is opened for a call keeps the call's context as long as it lives: `end` leaves
    nothing of the call in it.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Exchange | None = exchange

    def __call__(self) -> Mapping[str, str]:
        exchange = self._exchange
        if exchange is None:
            return {}
        return {
            "call_id": exchange.id,
            "run_id": exchange.run_id,
            "agent_id": exchange.caller.agent.id if exchange.caller is not None else "",
            "trace_id": trace_of(exchange),
        }

    def end(self) -> None:
        self._exchange = None


def trace_of(exchange: Exchange) -> str:
    """The trace of the call's span."""
    parent = parent_of(exchange.hints.traceparent)
    if parent is not None:
        return parent[0].hex()
    if exchange.caller is None or not exchange.run_id:
        return ""
    above = exchange.lineage.ancestors
    own = RunRef(exchange.caller.agent.id, exchange.run_id)
    return run_trace_id(RunRef(above[-1].agent, above[-1].run) if above else own).hex()


def line_of(exchange: Exchange, at: datetime) -> CallLine:
    spent, caller = exchange.spent, exchange.caller
    usage = spent.usage
    return CallLine(
        event="call ended",
        level="info",
        timestamp=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        call_id=exchange.id,
        run_id=exchange.run_id,
        agent_id=caller.agent.id if caller is not None else "",
        trace_id=trace_of(exchange),
        status=exchange.status.value,
        dialect=exchange.dialect.name,
        model=exchange.model if exchange.target else "",
        target=exchange.target,
        attempts=len(exchange.attempts),
        total_ms=round(exchange.elapsed() * 1000, 1),
        overhead_ms=exchange.overhead_ms or 0.0,
        input_tokens=usage.input,
        output_tokens=usage.output,
        cost_micro_usd=spent.micro_usd,
        tool_calls=len(exchange.decisions),
        denied=sum(not decision.released for decision in exchange.decisions),
        error=exchange.problem.kind if exchange.problem is not None else "",
    )


class CallLog:
    """`ended` is for the event loop, a few microseconds; `write` blocks, and is called in a thread."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write_text = write
        self._lines: list[bytes] = []
        self._left_out = 0

    def ended(self, exchange: Exchange) -> None:
        if len(self._lines) < MOST_LINES:
            self._lines.append(_encode(line_of(exchange, datetime.now(UTC))))
        else:
            self._left_out += 1

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        left_out, self._left_out = self._left_out, 0
        if left_out:
            told = {"event": "lines of ended calls were left out", "level": "warning", "lines": left_out}
            lines.append(_encode(told))
        await asyncio.to_thread(self._write, lines)

    def _write(self, lines: list[bytes]) -> None:
        text = b"\n".join([*lines, b""]).decode()
        if self._write_text is not None:
            self._write_text(text)
            return
        sys.stderr.write(text)
        sys.stderr.flush()
