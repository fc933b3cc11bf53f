"""What a call is charged of what its attempts may have cost: a guess is never more than was held for it."""

from __future__ import annotations

from dataclasses import replace

from budgets import Amount, Unit
from llm_proxy.chat.events import Usage
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.settle import amount, total


def charged(exchange: Exchange, spent: Spent) -> Spent:
    """The whole spending of a call whose last attempt came to `spent`.

    What an upstream reported is charged as it stands. What was guessed of the rest fits into what the hold
    leaves, in each unit that a limit counts, so that no limit is passed by a guess; `exchange.lost` too.
    """
    if not _guesses(exchange, spent):
        return total(spent, exchange.lost)
    room = _Room(exchange, [part for part in (spent, *exchange.lost) if part.told])
    exchange.lost = [part if part.told else room.fitted(part) for part in exchange.lost]
    return total(spent if spent.told else room.fitted(spent), exchange.lost)


def _guesses(exchange: Exchange, spent: Spent) -> bool:
    """Whether tokens were held that something guessed could pass. What is priced by the piece isn't."""
    counted = exchange.intake is not None and exchange.intake.tokens is not None
    return counted and exchange.dialect.priced and not all(part.told for part in (spent, *exchange.lost))


class _Room:
    """What the hold leaves to guesses, by unit; None for a unit that no limit counts.

    What was reported takes of it what it says. Where the reports alone pass the hold, each takes one prompt
    and one reply: what is more than these doesn't take away what was held for another target's prompt.
    """

    def __init__(self, exchange: Exchange, told: list[Spent]) -> None:
        held, floor = exchange.held, exchange.floor
        counted = {unit for bound in exchange.bounds for unit in bound.limit.maximum}
        prompt = floor.input_tokens or held.input_tokens
        cost = held.micro_usd - (floor.micro_usd if held.input_tokens > prompt else 0)
        reported = [amount(part, requests=0) for part in told]
        shares = [_share(part, prompt, held.output_tokens, cost) for part in told]

        def left(unit: Unit) -> int | None:
            if unit not in counted:
                return None
            used = sum([each.get(unit) for each in reported])
            if used > held.get(unit):
                used = sum([each.get(unit) for each in shares])
            return max(0, held.get(unit) - used)

        self._left = {unit: left(unit) for unit in _UNITS}

    def fitted(self, part: Spent) -> Spent:
        """The part made to fit, and taken from what is left: output gives way before the prompt does."""
        usage = part.usage
        given = self._least(usage.input, Unit.INPUT_TOKENS, Unit.TOKENS)
        self._take(Unit.TOKENS, given)
        said = self._least(usage.output, Unit.OUTPUT_TOKENS, Unit.TOKENS)
        self._take(Unit.TOKENS, said)
        cost = self._least(part.micro_usd, Unit.USD)
        self._take(Unit.INPUT_TOKENS, given)
        self._take(Unit.OUTPUT_TOKENS, said)
        self._take(Unit.USD, cost)
        return replace(part, usage=_cut(usage, given, said), micro_usd=cost)

    def _least(self, value: int, *units: Unit) -> int:
        return min([value, *(left for unit in units if (left := self._left[unit]) is not None)])

    def _take(self, unit: Unit, value: int) -> None:
        left = self._left[unit]
        if left is not None:
            self._left[unit] = left - value


_OF_OUTPUT = frozenset({"output", "reasoning", "audio_output", "image_output"})
_UNITS = (Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)


def _share(part: Spent, prompt: int, output: int, cost: int) -> Amount:
    """One prompt and one reply of a report, at most."""
    given, said = min(part.usage.input, prompt), min(part.usage.output, output)
    return Amount(min(part.micro_usd, cost), given + said, given, said)


def _cut(usage: Usage, given: int, said: int) -> Usage:
    """With less input and output; what are parts of them are no more than they."""
    if (given, said) == (usage.input, usage.output):
        return usage
    most = {name: said if name in _OF_OUTPUT else given for name in usage.__struct_fields__}
    return Usage(**{name: min(getattr(usage, name), limit) for name, limit in most.items()})
