"""What a call is charged in the end: what its upstream reported, or else what was seen to flow."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from budgets import Amount
from llm_proxy.chat.events import Usage
from llm_proxy.chat.reply import Assembly
from llm_proxy.counting.prompt import PromptCounter, within
from llm_proxy.counting.reply import reply_tokens
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import Tokenizer, tokenizer_of
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.pricing import tiers
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.price import NO_UNITS, Price
from llm_proxy.pricing.told import Told
from llm_proxy.records.evidence import PriceRow
from llm_proxy.records.view import CostLabel
from llm_proxy.resume import Resume
from llm_proxy.sending.lost import LostTry
from llm_proxy.wire.passthrough import billed
from routing.failures import Charge


class Settler:
    """Prices replies, whole and cut."""

    def __init__(self, prices: PriceBook, counter: TokenCounter) -> None:
        self._prices = prices
        self._counter = counter
        self._told = Told()

    async def finished(self, exchange: Exchange) -> Spent:
        """A reply that came whole: as reported, else counted from what passed."""
        if exchange.fetches and exchange.stored is not None and exchange.stored.charged:
            return Spent()
        price = self._price(exchange)
        usage = exchange.assembly.usage
        if usage is not None:
            spent = _spent(usage, price, CostLabel.REPORTED, _tier(exchange, exchange.assembly, price))
            spent.told = True
            return _plus(spent, exchange, price) if exchange.dialect.raw else spent
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        seen = await self._seen(exchange, exchange.assembly, exchange.resumed, _way(exchange), price)
        return _spent(seen, price, CostLabel.ESTIMATED, _tier(exchange, exchange.assembly, price))

    async def cut(self, exchange: Exchange) -> Spent:
        """A reply that stopped early, or whose caller left: at least what was seen of it."""
        price = self._price(exchange)
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        seen = await self._seen(exchange, exchange.assembly, exchange.resumed, _way(exchange), price)
        reported = exchange.assembly.usage
        usage = seen if reported is None else _at_least(reported, seen)
        spent = _spent(usage, price, CostLabel.PARTIAL, _tier(exchange, exchange.assembly, price))
        return replace(spent, told=reported is not None)

    async def lost(self, exchange: Exchange, attempt: LostTry) -> Spent:
        """A failed attempt that may have cost something."""
        price = self._prices.find(attempt.provider, attempt.model)
        reported, tier = attempt.assembly.usage, _tier(exchange, attempt.assembly, price)
        if reported is not None and (attempt.charge is not Charge.USED or attempt.assembly.finished()):
            return replace(_spent(reported, price, CostLabel.REPORTED, tier), told=True)
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        way = tokenizer_of(attempt.provider, attempt.model)
        usage = await self._seen(exchange, attempt.assembly, attempt.resumed, way, price)
        if reported is not None:
            enough = reported.output >= usage.output
            label = CostLabel.REPORTED if enough else CostLabel.PARTIAL
            return replace(_spent(_at_least(reported, usage), price, label, tier), told=True)
        if attempt.charge is Charge.MAYBE:
            usage = Usage(input=usage.input)
        return _spent(usage, price, CostLabel.PARTIAL, tier)

    def untold(self, exchange: Exchange, now_us: int) -> tuple[PriceRow, ...]:
        """The prices that the call was counted with and that the store may not have yet."""
        versions = {part.price for part in (exchange.spent, *exchange.lost) if part.price}
        return self._told.rows([self._prices.version(version) for version in versions], now_us)

    def told(self, rows: tuple[PriceRow, ...]) -> None:
        """The store has them now."""
        self._told.committed(rows)

    def _price(self, exchange: Exchange) -> Price | None:
        return self._prices.find(exchange.provider, exchange.served_model)

    async def _seen(
        self,
        exchange: Exchange,
        assembly: Assembly,
        resumed: Resume | None,
        way: Tokenizer,
        price: Price | None,
    ) -> Usage:
        """Tokens of the prompt, what it went on from included, and of every word of the reply, counted.

        What was written is no more than was held, since the hold has room for the longest reply.
        """
        prompt = await self._prompt(exchange, way, price)
        if resumed is not None:
            prompt += await self._counter.count((resumed.left.text,), way.encoding)
        said = await reply_tokens(assembly.reply(), self._counter, way)
        return Usage(input=prompt, output=min(said, exchange.held.output_tokens or said))

    async def prompt(self, exchange: Exchange) -> int:
        """The prompt's tokens, counted now if they weren't needed before."""
        return await self._prompt(exchange, _way(exchange), self._price(exchange))

    async def _prompt(self, exchange: Exchange, way: Tokenizer, price: Price | None) -> int:
        intake, request = exchange.intake, exchange.request
        window = None if price is None else price.window
        counted = None if intake is None else intake.counted_by(way)
        if intake is not None and counted is not None:
            counted = within(window, counted, counted - intake.bounded)
        elif request is not None:
            counted = await PromptCounter(self._counter).prompt(request, exchange.dialect, way, window)
        return (counted or 0) + exchange.earlier_tokens


def _way(exchange: Exchange) -> Tokenizer:
    return tokenizer_of(exchange.provider, exchange.served_model)


def _by_the_piece(exchange: Exchange, price: Price | None) -> Spent:
    """What passes through without usage costs what its pieces cost, where these have a price."""
    return _plus(Spent(), exchange, price)


def _plus(spent: Spent, exchange: Exchange, price: Price | None) -> Spent:
    """With the cost of what is priced by the piece, unless reported tokens stand for it."""
    if price is None or spent.micro_usd:
        return spent
    told = billed(exchange.emitted.getvalue())
    flat = price.flat_micro_usd(exchange.units if told == NO_UNITS else told)
    return (
        replace(spent, micro_usd=flat, label=spent.label or CostLabel.ESTIMATED, price=price.version)
        if flat
        else spent
    )


def total(spent: Spent, lost: list[Spent]) -> Spent:
    """A call's whole spending, its failed attempts included. One guess makes the sum a guess."""
    if not lost:
        return spent
    every = [spent, *lost] if spent.label is not None else lost
    labels = [part.label for part in every if part.label is not None]
    weakest = max(labels, key=_WEAKEST.index, default=None)
    counts = zip(*[structs.astuple(part.usage) for part in every], strict=True)
    return Spent(
        usage=Usage(**dict(zip(Usage.__struct_fields__, map(sum, counts), strict=True))),
        micro_usd=sum(part.micro_usd for part in every),
        label=weakest,
        price=spent.price or every[-1].price,
        tier=spent.tier,
    )


_MOST_TOKENS = 2**40
_MOST_MICRO_USD = 2**53
"""What one call can be charged at most. A server that reports more is mistaken, and a counter holds 2**63."""

_WEAKEST = (CostLabel.REPORTED, CostLabel.ESTIMATED, CostLabel.PARTIAL, CostLabel.UNPRICED)


def amount(spent: Spent, *, requests: int) -> Amount:
    """What the ledger is told."""
    usage = spent.usage
    return Amount(
        micro_usd=spent.micro_usd,
        tokens=usage.total,
        input_tokens=usage.input,
        output_tokens=usage.output,
        requests=requests,
    )


def _tier(exchange: Exchange, assembly: Assembly, price: Price | None) -> str:
    """The service tier as the upstream says, else as the request asked and the price knows it."""
    if assembly.tier:
        return tiers.named(assembly.tier)
    if price is None or len(price.tiers) == 1:
        return ""
    return tiers.known(tiers.asked_tier(exchange.request, exchange.dropped), price.tiers) or ""


def _spent(usage: Usage, price: Price | None, label: CostLabel, tier: str) -> Spent:
    usage = _possible(usage)
    if price is None:
        return Spent(usage, 0, CostLabel.UNPRICED, tier=tier)
    micro_usd = min(price.micro_usd(usage, tier), _MOST_MICRO_USD)
    return Spent(usage, micro_usd, label, price.version, tier)


def _possible(usage: Usage) -> Usage:
    counts = structs.astuple(usage)
    if max(counts) <= _MOST_TOKENS:
        return usage
    names = usage.__struct_fields__
    return Usage(**{name: min(count, _MOST_TOKENS) for name, count in zip(names, counts, strict=True)})


def _at_least(reported: Usage, seen: Usage) -> Usage:
    """Usage that was reported while the reply had not ended: its output is what was written until then."""
    return structs.replace(reported, output=max(reported.output, seen.output))
