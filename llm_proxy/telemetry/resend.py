"""Sending spans again, once and at the caller's wish: what is refused is told, and nothing waits for ever."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.outcome import Accepted, Invalid, Partial, Retry, TooLarge, Transport
from llm_proxy.telemetry.pace import Backoff, OutboxLimits
from llm_proxy.telemetry.packing import Packed, Packer
from llm_proxy.telemetry.settings import SpanSettings

PATIENCE_S = 30.0
"""How long a backend may take nothing before it's given up."""


@dataclass(frozen=True, slots=True)
class RefusedSpan:
    """`id` is that of the call, as a dead letter has it."""

    id: str
    span: str
    reason: str


@dataclass(slots=True)
class Resent:
    """What became of it. `unsent` says why the rest was not tried any more; empty where all was."""

    items: int = 0
    spans: int = 0
    refused: list[RefusedSpan] = field(default_factory=list[RefusedSpan])
    unsent: str = ""

    @property
    def well(self) -> bool:
        return not (self.refused or self.unsent)


class Resender:
    """`sent` hears of each item whose spans were all taken whole."""

    def __init__(
        self,
        transport: Transport,
        settings: SpanSettings,
        *,
        random: Callable[[], float],
        sent: Callable[[Item], None] = lambda _: None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._transport, self._sent, self._sleep = transport, sent, sleep
        self._limits = OutboxLimits()
        self._packer = Packer(settings, self._limits.request_bytes)
        self._backoff = Backoff(self._limits, random)
        self._patience_s = patience_s

    def send(self, batches: Iterable[Sequence[Item]]) -> Resent:
        """In order. Blocks."""
        told = Resent()
        for items in batches:
            self._send(items, told)
            if told.unsent:
                break
        return told

    def _send(self, items: Sequence[Item], told: Resent) -> None:
        bad: set[str] = set()
        work = deque(self._packer.packs(self._built(items, told, bad)))
        patient_until = time.monotonic() + self._patience_s
        while work:
            pack = work.popleft()
            outcome = self._transport.send(self._packer.request(pack))
            match outcome:
                case Accepted():
                    told.spans += len(pack)
                    self._backoff.reset()
                    patient_until = time.monotonic() + self._patience_s
                case Partial() | TooLarge() | Invalid() if len(pack) > 1:
                    middle = len(pack) // 2
                    work.extendleft((pack[middle:], pack[:middle]))
                case Partial() | TooLarge() | Invalid():
                    told.refused.append(_refused(pack[0], outcome))
                    bad.add(pack[0].item.id)
                case Retry():
                    wait = self._backoff.delay(outcome.after_s)
                    if time.monotonic() + wait > patient_until:
                        told.unsent = outcome.why
                        return
                    self._sleep(wait)
                    work.appendleft(pack)
                case _:
                    assert_never(outcome)
        for item in items:
            told.items += 1
            if item.id not in bad:
                self._sent(item)

    def _built(self, items: Sequence[Item], told: Resent, bad: set[str]) -> Iterator[Packed]:
        for item in items:
            try:
                yield from self._packer.whole(item)
            except Exception as error:  # noqa: BLE001  one odd record must not hold up all the others
                why = f"no span could be built: {type(error).__name__}"
                told.refused.append(RefusedSpan(item.id, "", why))
                bad.add(item.id)


def _refused(packed: Packed, refusal: Partial | TooLarge | Invalid) -> RefusedSpan:
    return RefusedSpan(packed.item.id, packed.span.name, f"{type(refusal).__name__}: {refusal.message}")
