"""What a stream holds runs ahead of what has come of it, and where no more is to be had it says why."""

from __future__ import annotations

import pytest

from budgets import Amount, Expire, Settle, Unit
from llm_proxy.chat.events import CallDelta, Finished, Reasoning, Text, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly
from llm_proxy.counting.error import ENOUGH, TokenErrors, error_key
from llm_proxy.errors import Kind, ProxyError
from tests.stores import NOW
from tests.unit.stream_holds import COUNTER, PROMPT, Call, Ledger, call

WIDE = {Unit.TOKENS: 10**9}
WORD = "word "
"""One token of every encoding."""


async def says(done: Call, assembly: Assembly, text: str) -> None:
    """One chunk of the reply, as the flow hands it over."""
    assembly.add(Text(0, text))
    await pours(done, assembly)


async def pours(done: Call, assembly: Assembly) -> None:
    if done.allowance.short(assembly):
        await done.allowance.cover(assembly)


async def words(done: Call, count: int, assembly: Assembly | None = None) -> list[int]:
    """So many words, ten at a time; the output tokens held, wherever that changes."""
    assembly = assembly or Assembly()
    seen = [done.exchange.held.output_tokens]
    for _ in range(0, count, 10):
        await says(done, assembly, WORD * 10)
        if done.exchange.held.output_tokens != seen[-1]:
            seen.append(done.exchange.held.output_tokens)
    return seen


async def test_it_doubles_on_the_way_and_stops_at_the_worst_case() -> None:
    done = call(WIDE)
    assert await words(done, 31_990) == [1_024, 2_048, 4_096, 8_192, 16_384, 32_000]
    assert done.ledger.asked == 5
    assert done.held.held == done.exchange.held
    assert done.exchange.held.micro_usd == PROMPT + 2 * 32_000
    assert done.exchange.topped_up.output_tokens == 32_000 - 1_024
    assert done.exchange.topped_up.micro_usd == 2 * (32_000 - 1_024)
    assert done.exchange.topped_up.requests == done.exchange.topped_up.concurrency == 0


async def test_a_short_reply_asks_for_nothing() -> None:
    done = call(WIDE)
    assert await words(done, 500) == [1_024]
    assert done.ledger.asked == 0


async def test_letters_are_not_taken_for_tokens_for_long() -> None:
    """3,000 letters pass the mark; they are 600 tokens, more than half of what is held."""
    done, assembly = call(WIDE), Assembly()
    await says(done, assembly, WORD * 400)
    assert done.allowance.bound(assembly) == await COUNTER.count((WORD * 400,))
    assert done.ledger.asked == 0
    await says(done, assembly, WORD * 200)
    assert done.ledger.asked == 1


async def test_a_chunk_larger_than_what_is_held_is_held_for_at_once() -> None:
    done, assembly = call(WIDE), Assembly()
    await says(done, assembly, WORD * 9_000)
    assert done.exchange.held.output_tokens == -(-4 * done.allowance.bound(assembly) // 3)
    assert 12_000 <= done.exchange.held.output_tokens < 12_100
    assert done.ledger.asked == 1


async def test_choices_share_the_hold() -> None:
    done, assembly = call(WIDE, choices=3), Assembly()
    assert done.exchange.held.output_tokens == 3 * 1_024
    for choice in range(3):
        assembly.add(Text(choice, WORD * 600))
    await pours(done, assembly)
    assert done.exchange.held.output_tokens == 3 * 2_048


async def test_a_callers_cap_is_the_most() -> None:
    done = call(WIDE, cap=1_500)
    assert await words(done, 1_500) == [1_024, 1_500]
    assert done.ledger.asked == 1


async def test_reasoning_and_calls_that_wait_count_as_they_come() -> None:
    done, assembly = call(WIDE), Assembly()
    assembly.add(Reasoning(0, WORD * 500))
    assembly.add(CallDelta(0, 0, "c", "write", WORD * 500))
    await pours(done, assembly)
    assert done.exchange.held.output_tokens == 2_048


async def test_what_an_earlier_attempt_had_said_counts_too() -> None:
    """Twice 600 letters; those of the first were never looked at, and count as tokens."""
    done = call(WIDE)
    await says(done, Assembly(), WORD * 120)
    assert done.exchange.held.output_tokens == 1_024
    done.allowance.begin()
    await says(done, Assembly(), WORD * 120)
    assert done.exchange.held.output_tokens == 2_048


async def test_the_measured_error_of_the_model_raises_the_count() -> None:
    errors = TokenErrors()
    for _ in range(ENOUGH):
        errors.observe(error_key("openai", "m"), 1_000, 2_000)
    done, assembly = call(WIDE, errors=errors), Assembly()
    await says(done, assembly, WORD * 400)
    assert done.allowance.bound(assembly) == 2 * await COUNTER.count((WORD * 400,))
    assert done.exchange.held.output_tokens == 2_048


async def test_usage_that_is_told_on_the_way_counts_where_it_is_more() -> None:
    done, assembly = call(WIDE), Assembly()
    assembly.add(UsageSeen(Usage(input=PROMPT, output=900)))
    await says(done, assembly, WORD)
    assert done.exchange.held.output_tokens == 2_048


async def test_a_whole_reply_with_its_usage_is_never_ended() -> None:
    """900 tokens were said, and 5,000 thought in secret: it's charged as told, and holds no more."""
    done, assembly = call({Unit.TOKENS: PROMPT + 1_024}), Assembly()
    for event in (Text(0, WORD * 900), Finished(0, "stop"), UsageSeen(Usage(input=PROMPT, output=5_900))):
        assembly.add(event)
    await pours(done, assembly)
    assert done.ledger.asked == 0


async def test_a_burst_with_its_usage_is_held_for_before_it_is_released() -> None:
    for room, held in ((10**9, -(-4 * 3_000 // 3)), (3_000, 0)):
        done, assembly = call({Unit.TOKENS: room}), Assembly()
        told = UsageSeen(Usage(input=PROMPT, output=3_000))
        for event in (Text(0, WORD * 3_000), Finished(0, "stop"), told):
            assembly.add(event)
        if held:
            await pours(done, assembly)
            assert done.exchange.held.output_tokens == held
        else:
            with pytest.raises(ProxyError, match="'tight' says no"):
                await pours(done, assembly)


async def test_refused_ahead_of_need_it_uses_up_what_it_holds_and_then_ends() -> None:
    done, assembly = call({Unit.TOKENS: PROMPT + 1_024}), Assembly()
    await words(done, 1_020, assembly)
    assert done.told == []
    with pytest.raises(
        ProxyError, match=r"all that was held for it is used up\. Budget 'tight' says no"
    ) as end:
        await words(done, 10, assembly)
    assert end.value.kind is Kind.BUDGET_EXCEEDED
    assert done.exchange.refused is done.told[0]
    assert done.exchange.held.output_tokens == 1_024
    assert done.held.held == done.exchange.held


@pytest.mark.parametrize(
    "maximum",
    [
        {Unit.TOKENS: PROMPT + 1_500},
        {Unit.OUTPUT_TOKENS: 1_500},
        {Unit.USD: PROMPT + 2 * 1_500 + 1},
        {Unit.USD: PROMPT + 2 * 5_000, Unit.TOKENS: PROMPT + 1_500, Unit.OUTPUT_TOKENS: 1_700},
    ],
    ids=["tokens", "output_tokens", "usd", "several"],
)
async def test_it_takes_what_is_left_where_twice_as_much_is_not(maximum: dict[Unit, int]) -> None:
    done, assembly = call(maximum), Assembly()
    assert await words(done, 1_490, assembly) == [1_024, 1_500]
    with pytest.raises(ProxyError):
        await words(done, 20, assembly)


async def test_what_others_gave_back_meanwhile_is_there_when_it_is_needed() -> None:
    ledger = Ledger()
    other = call({Unit.TOKENS: 2_500}, ledger=ledger, id_="other")
    done, assembly = call({Unit.TOKENS: 2_500}, ledger=ledger), Assembly()
    await words(done, 1_000, assembly)
    before = done.exchange.held.output_tokens
    ledger.store.apply([Settle(other.exchange.id, Amount(tokens=PROMPT))], NOW)
    await words(done, 1_000, assembly)
    assert done.exchange.held.output_tokens > before
    assert done.told == []


async def test_without_the_store_it_uses_up_what_it_holds_and_then_ends() -> None:
    done, assembly = call(WIDE), Assembly()
    done.ledger.down = True
    await words(done, 1_020, assembly)
    with pytest.raises(ProxyError, match=r"all that was held for it is used up\. The proxy's store") as end:
        await words(done, 10, assembly)
    assert end.value.kind is Kind.STORE_UNAVAILABLE
    assert done.exchange.refused is None


async def test_the_store_may_come_back_in_between() -> None:
    done, assembly = call(WIDE), Assembly()
    done.ledger.down = True
    await words(done, 900, assembly)
    done.ledger.down = False
    await words(done, 150, assembly)
    assert done.exchange.held.output_tokens == 2_048


async def test_a_hold_that_expired_ends_the_stream() -> None:
    done = call(WIDE)
    done.ledger.store.apply([Expire(NOW + 10**10)], NOW)
    with pytest.raises(ProxyError) as end:
        await words(done, 2_000)
    assert end.value.kind is Kind.STORE_UNAVAILABLE
    assert done.exchange.held.output_tokens == 1_024
