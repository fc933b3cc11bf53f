"""The exporter: reads what happened from the store's outbox and sends its spans until each is accounted for.

The cursor moves only once every span before it was accepted, or was set aside as a dead letter.
So a crash or a dead backend repeats spans at worst (their ids are the same) and never loses one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import assert_never

from msgspec import structs

from llm_proxy.telemetry.items import Item, SpanSource
from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.telemetry.outcome import Accepted, Invalid, Outcome, Partial, Retry, TooLarge, Transport
from llm_proxy.telemetry.pace import Appetite, Backoff, OutboxLimits, Pace
from llm_proxy.telemetry.packing import Packed, Packer
from llm_proxy.telemetry.settings import SpanSettings

_log = logging.getLogger(__name__)


class _Step(Enum):
    MOVED = "moved"
    """The cursor moved."""
    AGAIN = "again"
    """The backend took nothing: the same calls are to be read again, by whoever exports then."""
    EMPTY = "empty"
    STUCK = "stuck"
    """Stopping, and the backend takes nothing."""


class OutboxExporter:
    """Owns one thread between `start` and `stop`. `clock` is Unix seconds; `random` gives [0, 1)."""

    def __init__(
        self,
        source: SpanSource,
        transport: Transport,
        settings: SpanSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        limits: OutboxLimits | None = None,
    ) -> None:
        self._source, self._transport = source, transport
        self._metrics = metrics
        self._clock, self._limits = clock, limits or OutboxLimits()
        self._packer = Packer(settings, self._limits.request_bytes)
        self._backoff = Backoff(self._limits, random)
        self._appetite = Appetite(self._limits.max_calls)
        self._stopping = threading.Event()
        self._flush_until = 0.0
        self._measured_at = float("-inf")
        self._failing = ""
        self._thread = threading.Thread(target=self._run, name="otlp-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float = 1.0) -> bool:
        """Sends what it can within `grace_s`, then ends the thread. False where it is still connecting.

        What was not sent is sent after the next start. Once this gave True the source is left alone.
        """
        self._flush_until = time.monotonic() + grace_s
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(grace_s)
        if self._thread.is_alive():
            self._transport.abort()
            self._thread.join(0.5)
        ended = not self._thread.is_alive()
        if ended:
            self._transport.close()
        return ended

    def _run(self) -> None:
        self._pace = Pace(self._limits.max_share, time.thread_time, time.monotonic, self._stopping.wait)
        step = _Step.EMPTY
        while not self._stopping.is_set():
            step = self._guarded_step()
            if step is _Step.EMPTY:
                self._stopping.wait(self._limits.idle_s)
        while step is not _Step.STUCK and time.monotonic() < self._flush_until:
            step = self._guarded_step()
            if step is _Step.EMPTY:
                break

    def _guarded_step(self) -> _Step:
        """One step, after which the thread lives on: a store that is down now will be back."""
        try:
            self._measure()
            return self._step()
        except Exception as error:  # noqa: BLE001  the thread's edge: any store may raise anything
            # Only the type: a database's message may quote the row.
            self._note_failure(f"store: {type(error).__name__}")
            if self._stopping.wait(self._backoff.delay()):
                return _Step.STUCK
            return _Step.MOVED

    def _step(self) -> _Step:
        before = time.thread_time()
        batch = self._source.next(self._appetite.limit)
        if batch is None:
            return _Step.EMPTY
        size = sum(_content_bytes(item) for item in batch.items)
        self._appetite.fed(len(batch.items), time.thread_time() - before, size)
        self._pace.breathe()
        step = self._deliver(self._build(batch.items))
        if step is _Step.MOVED:
            self._source.advance(batch.cursor)
            self._pace.breathe()
        return step

    def _build(self, items: Sequence[Item]) -> list[Packed]:
        packed: list[Packed] = []
        for item in items:
            try:
                packed += self._packer.whole(item)
            except Exception as error:  # noqa: BLE001  one odd record must not hold up all the others
                self._give_up(item, f"no span could be built: {type(error).__name__}")
                # Other spans hang below that of a run which began with it.
                packed += self._packer.whole(structs.replace(item, call=None, befallen=None))
            self._pace.breathe()
        return packed

    def _deliver(self, items: list[Packed]) -> _Step:
        """MOVED once every item was accepted or set aside."""
        work = deque(self._packer.packs(items))
        started = False
        while work:
            pack = work.popleft()
            outcome = self._send(pack)
            match outcome:
                case Accepted():
                    self._metrics.spans_accepted(len(pack))
                    started = True
                case Partial() | TooLarge() | Invalid() if len(pack) > 1:
                    middle = len(pack) // 2
                    work.extendleft((pack[middle:], pack[:middle]))
                case Partial() | TooLarge() | Invalid():
                    trimmed = self._set_aside(pack[0], outcome)
                    work.extendleft([one] for one in trimmed)
                    if trimmed and trimmed[0].refused > 1 and self._stopping.wait(self._backoff.delay()):
                        return _Step.STUCK
                case Retry():
                    if self._stopping.wait(self._backoff.delay(outcome.after_s)):
                        return _Step.STUCK
                    # Nothing taken so far: let go of the calls, so that the source can hand them to another
                    # process or this one. Otherwise that would only repeat spans.
                    if not started:
                        return _Step.AGAIN
                    work.appendleft(pack)
                case _:
                    assert_never(outcome)
        return _Step.MOVED

    def _send(self, pack: list[Packed]) -> Outcome:
        outcome = self._transport.send(self._packer.request(pack))
        self._pace.breathe()
        if isinstance(outcome, Retry):
            self._metrics.export_retried(outcome.why)
            self._note_failure(outcome.why)
            self._measure()
        else:
            self._note_answer()
        return outcome

    def _set_aside(self, packed: Packed, refusal: Partial | TooLarge | Invalid) -> list[Packed]:
        """Dead-letters a span that the backend refuses, and gives the one without content to send instead.

        That one is tried several times, since nothing in it can be wrong: a backend may be, for a while.
        """
        item = packed.item
        if packed.refused:
            if packed.refused < self._limits.trimmed_tries:
                return [replace(packed, refused=packed.refused + 1)]
            _log.error("otlp: %s: even its span without content was refused", item.id)
            return []
        self._metrics.span_rejected()
        self._give_up(item, f"{packed.span.name}: {type(refusal).__name__}: {refusal.message}")
        return [self._packer.trimmed(packed)]

    def _give_up(self, item: Item, reason: str) -> None:
        self._source.dead_letter(item, reason)
        self._metrics.span_dead_lettered()
        _log.warning("otlp: %s: a whole span can't be sent; noted as a dead letter", item.id)

    def _note_answer(self) -> None:
        self._backoff.reset()
        if self._failing:
            _log.info("otlp: the backend answers again (it was: %s)", self._failing)
            self._failing = ""

    def _note_failure(self, why: str) -> None:
        if why != self._failing:
            _log.warning("otlp: not sent (%s); trying again until it is", why)
            self._failing = why

    def _measure(self) -> None:
        now = time.monotonic()
        if now - self._measured_at < self._limits.measure_every_s:
            return
        self._measured_at = now
        backlog = self._source.backlog()
        age = 0.0 if backlog.oldest_us is None else max(self._clock() - backlog.oldest_us / 1e6, 0.0)
        self._metrics.backlog(backlog.count, age)
        hurried = age > self._limits.hurry_after_s
        self._pace.share = self._limits.hurried_share if hurried else self._limits.max_share


def _content_bytes(item: Item) -> int:
    call = item.call
    return len(call.request or b"") + len(call.emitted or b"") if call is not None else 0
