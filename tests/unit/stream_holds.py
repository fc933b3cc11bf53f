"""A streamed call that began with a small hold, over the ledger's reference store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from budgets import (
    Bound,
    Counter,
    Held,
    Hold,
    Limit,
    LimitBook,
    MemoryStore,
    Refused,
    Scope,
    Subject,
    Unit,
    window_named,
)
from llm_proxy.counting.error import TokenErrors
from llm_proxy.counting.text import TokenCounter
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.pricing.price import Price
from llm_proxy.pricing.rates import Rates
from llm_proxy.quote import Quote, quote
from llm_proxy.records.batch import Found, Job
from llm_proxy.records.runstate import UNKNOWN
from llm_proxy.records.writer import unavailable
from llm_proxy.topup import Allowance, TopUps
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.stores import NOW, body_of

PRICE = Price.of(Rates(input=10**6, output=2 * 10**6), max_output=32_000)
"""A micro-dollar for a token in, two for one out."""
PROMPT = 10
COUNTER = TokenCounter()


@dataclass
class Ledger:
    """Stands where the writer does. `down`: it answers nothing; `asked` are the jobs that it did."""

    store: MemoryStore = field(default_factory=MemoryStore)
    down: bool = False
    asked: int = 0

    async def submit(self, job: Job) -> Any:
        if self.down:
            raise unavailable()
        self.asked += 1
        return job.then(Found(tuple(self.store.apply(job.ops, NOW)), UNKNOWN)).value

    def counter(self, bound: Bound) -> Counter:
        return self.store.peek([bound.key])[bound.key]


@dataclass
class Call:
    exchange: Exchange
    ledger: Ledger
    bound: Bound
    allowance: Allowance
    told: list[Refused] = field(default_factory=list[Refused])

    @property
    def held(self) -> Counter:
        return self.ledger.counter(self.bound)


def call(
    maximum: dict[Unit, int],
    *,
    start: int = 1_024,
    choices: int = 1,
    cap: int | None = None,
    ledger: Ledger | None = None,
    id_: str = "call",
    errors: TokenErrors | None = None,
    model: str = "m",
) -> Call:
    """A call that holds `start` of its reply, under one limit; the ledger had room for that."""
    ledger = ledger or Ledger()
    limit = Limit("tight", Scope(), window_named("day"), maximum)
    (bound,) = LimitBook([limit]).bounds(Subject("a"), NOW)
    body = body_of(stream=True, n=choices)
    exchange = Exchange(id_, NOW, OPENAI_CHAT, 0.0, body=body, request=OPENAI_CHAT.parse(body))
    exchange.provider, exchange.served_model, exchange.bounds = "openai", model, (bound,)
    held: Quote = quote(PROMPT, cap, choices, [PRICE]).holding(start)
    exchange.held = held.amount()
    hold = Hold(exchange.id, exchange.bounds, held.amount(), held.floor(), NOW + 10**9)
    (result,) = ledger.store.apply([hold], NOW)
    assert isinstance(result, Held), result
    told: list[Refused] = []

    async def tell(_: Exchange, refused: Refused) -> ProxyError:
        told.append(refused)
        return ProxyError(Kind.BUDGET_EXCEEDED, f"Budget {refused.limit_id!r} says no.")

    topups = TopUps(ledger, COUNTER, errors or TokenErrors(), tell)  # type: ignore[arg-type]
    return Call(exchange, ledger, bound, topups.of(exchange, held), told)
