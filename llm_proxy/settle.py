"""What a call is charged in the end: what its upstream reported, or else what was seen to flow."""

from __future__ import annotations

from msgspec import structs

from budgets import Amount
from llm_proxy.chat.events import Usage
from llm_proxy.chat.reply import Assembly, Reply
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.records.view import CostLabel
from llm_proxy.resume import Resume
from llm_proxy.sending.lost import LostTry
from llm_proxy.upstream.prices import NO_UNITS, Price, PriceBook
from llm_proxy.upstream.tokens import IMAGE, PER_MESSAGE, PER_REPLY, TokenCounter
from llm_proxy.wire.passthrough import billed
from routing.failures import Charge


class Settler:
    """Prices replies, whole and cut."""

    def __init__(self, prices: PriceBook, counter: TokenCounter) -> None:
        self._prices = prices
        self._counter = counter

    async def finished(self, exchange: Exchange) -> Spent:
        """A reply that came whole: as reported, else counted from what passed."""
        if exchange.fetches and exchange.stored is not None and exchange.stored.charged:
            return Spent()
        price = self._price(exchange)
        usage = exchange.assembly.usage
        if usage is not None:
            spent = _spent(usage, price, CostLabel.REPORTED)
            return _plus(spent, exchange, price) if exchange.dialect.raw else spent
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        seen = await self._seen(exchange, exchange.assembly, exchange.resumed)
        return _spent(seen, price, CostLabel.ESTIMATED)

    async def cut(self, exchange: Exchange) -> Spent:
        """A reply that stopped early, or whose caller left: at least what was seen of it."""
        price = self._price(exchange)
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        seen = await self._seen(exchange, exchange.assembly, exchange.resumed)
        reported = exchange.assembly.usage
        if reported is not None:
            return _spent(_at_least(reported, seen), price, CostLabel.PARTIAL)
        return _spent(seen, price, CostLabel.PARTIAL)

    async def lost(self, exchange: Exchange, attempt: LostTry) -> Spent:
        """A failed attempt that may have cost something."""
        price = self._prices.find(attempt.provider, attempt.model)
        reported = attempt.assembly.usage
        if reported is not None and (attempt.charge is not Charge.USED or attempt.assembly.finished()):
            return _spent(reported, price, CostLabel.REPORTED)
        if not exchange.dialect.priced:
            return _by_the_piece(exchange, price)
        usage = await self._seen(exchange, attempt.assembly, attempt.resumed)
        if reported is not None:
            enough = reported.output >= usage.output
            label = CostLabel.REPORTED if enough else CostLabel.PARTIAL
            return _spent(_at_least(reported, usage), price, label)
        if attempt.charge is Charge.MAYBE:
            usage = Usage(input=usage.input)
        return _spent(usage, price, CostLabel.PARTIAL)

    def _price(self, exchange: Exchange) -> Price | None:
        return self._prices.find(exchange.provider, exchange.served_model)

    async def _seen(self, exchange: Exchange, assembly: Assembly, resumed: Resume | None) -> Usage:
        """Tokens of the prompt, what it went on from included, and of every word of the reply, counted."""
        prompt = await self.prompt(exchange)
        if resumed is not None:
            prompt += await self._counter.count((resumed.left.text,))
        texts = _texts(assembly.reply())
        return Usage(input=prompt, output=await self._counter.count(texts) if texts else 0)

    async def prompt(self, exchange: Exchange) -> int:
        """The prompt's tokens, counted now if they weren't needed before."""
        if exchange.intake is not None and exchange.intake.tokens is not None:
            return exchange.intake.tokens + exchange.earlier_tokens
        request = exchange.request
        if request is None:
            return 0
        facts = [exchange.dialect.message_facts(bytes(raw)) for raw in request.messages]
        texts = [text for message in facts for text in message.texts]
        declared = exchange.dialect.declared
        texts += [request.body[slice(*at)].decode() for key, at in request.spans.items() if key in declared]
        around = PER_REPLY + sum(PER_MESSAGE + IMAGE * len(message.images) for message in facts)
        return around + exchange.earlier_tokens + await self._counter.count(tuple(texts))


def _by_the_piece(exchange: Exchange, price: Price | None) -> Spent:
    """What passes through without usage costs what its pieces cost, where these have a price."""
    return _plus(Spent(), exchange, price)


def _plus(spent: Spent, exchange: Exchange, price: Price | None) -> Spent:
    """With the cost of what is priced by the piece, unless reported tokens stand for it."""
    if price is None or spent.micro_usd:
        return spent
    told = billed(exchange.emitted.getvalue())
    flat = price.flat_micro_usd(exchange.units if told == NO_UNITS else told)
    return Spent(spent.usage, flat, spent.label or CostLabel.ESTIMATED) if flat else spent


def total(spent: Spent, lost: list[Spent]) -> Spent:
    """A call's whole spending, its failed attempts included. One guess makes the sum a guess."""
    if not lost:
        return spent
    every = [spent, *lost] if spent.label is not None else lost
    labels = [part.label for part in every if part.label is not None]
    weakest = max(labels, key=_WEAKEST.index, default=None)
    return Spent(
        usage=Usage(
            input=sum(part.usage.input for part in every),
            output=sum(part.usage.output for part in every),
            cached=sum(part.usage.cached for part in every),
            cache_write=sum(part.usage.cache_write for part in every),
            reasoning=sum(part.usage.reasoning for part in every),
        ),
        micro_usd=sum(part.micro_usd for part in every),
        label=weakest,
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


def _spent(usage: Usage, price: Price | None, label: CostLabel) -> Spent:
    usage = _possible(usage)
    if price is None:
        return Spent(usage, 0, CostLabel.UNPRICED)
    return Spent(usage, min(price.micro_usd(usage), _MOST_MICRO_USD), label)


def _possible(usage: Usage) -> Usage:
    counts = structs.astuple(usage)
    if max(counts) <= _MOST_TOKENS:
        return usage
    names = usage.__struct_fields__
    return Usage(**{name: min(count, _MOST_TOKENS) for name, count in zip(names, counts, strict=True)})


def _at_least(reported: Usage, seen: Usage) -> Usage:
    """Usage that was reported while the reply had not ended: its output is what was written until then."""
    return structs.replace(reported, output=max(reported.output, seen.output))


def _texts(reply: Reply) -> tuple[str, ...]:
    texts: list[str] = []
    for choice in reply.choices:
        texts += (choice.text, choice.refusal)
        texts += (part.text for part in choice.reasoning)
        for call in choice.calls:
            texts += (call.name, call.arguments)
    return tuple(text for text in texts if text)
