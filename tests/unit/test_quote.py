"""What a call may cost at worst, how it's cut to what is left, and what it's charged in the end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from budgets import Amount, Bound, Hold, Limit, Refused, Scope, Unit, window_named
from llm_proxy.chat.events import Text, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly
from llm_proxy.counting.prompt import PER_MESSAGE, PER_REPLY
from llm_proxy.counting.text import TokenCounter
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.intake import Reader
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.price import DEFAULT_MAX_OUTPUT, FREE, Band, Price
from llm_proxy.pricing.rates import Rates
from llm_proxy.quote import LEAST_OUTPUT, ONE, Quote, Tries, counts_tokens, quote
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.view import CostLabel
from llm_proxy.sending.lost import LostTry
from llm_proxy.settle import Settler, amount, total
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from routing.failures import Charge
from tests.stores import PRICES, body_of

MICRO = 10**6
CHEAP = Price.of(Rates(input=MICRO, output=2 * MICRO), max_output=1_000)
DEAR = Price.of(Rates(input=MICRO, output=10 * MICRO, reasoning=12 * MICRO), max_output=500)
VERSION = "".join(price.version for name in PRICES if (price := PriceBook(PRICES).find("openai", name)))


def refused(unit: Unit, maximum: int, used: int = 0, held: int = 0) -> Refused:
    return Refused("limit", "key", unit, maximum, used, held, 1, None)


def test_the_worst_case_is_at_the_dearest_target_and_the_longest_reply() -> None:
    worst = quote(100, None, 2, [CHEAP, DEAR])
    assert (worst.cap, worst.capped) == (1_000, False)
    assert worst.amount() == Amount(
        micro_usd=100 + 12 * 2_000,
        tokens=2_100,
        input_tokens=100,
        output_tokens=2_000,
        requests=1,
        concurrency=1,
    )
    assert worst.floor() == Amount(micro_usd=100, tokens=100, input_tokens=100, requests=1)


def test_the_callers_cap_is_kept() -> None:
    worst = quote(100, 7, 3, [CHEAP])
    assert (worst.cap, worst.capped) == (7, True)
    assert worst.amount().output_tokens == 21
    assert worst.shrunk(refused(Unit.TOKENS, 110)) is None


def test_a_model_without_a_price_costs_nothing_and_is_bounded_all_the_same() -> None:
    for known in ([], [None], [FREE]):
        worst = quote(5, None, 1, known)
        assert (worst.cap, worst.amount().micro_usd) == (DEFAULT_MAX_OUTPUT, 0)


@pytest.mark.parametrize(
    ("refusal", "cap"),
    [
        (refused(Unit.TOKENS, 1_000, used=400, held=100), 200),
        (refused(Unit.TOKENS, 1_001, used=400, held=100), 200),
        (refused(Unit.OUTPUT_TOKENS, 500), 250),
        (refused(Unit.USD, 1_000), 225),
        (refused(Unit.USD, 10**9), None),
        (refused(Unit.USD, 99), None),
        (refused(Unit.TOKENS, 100 + 2 * LEAST_OUTPUT), LEAST_OUTPUT),
        (refused(Unit.TOKENS, 100 + 2 * LEAST_OUTPUT - 1), None),
        (refused(Unit.TOKENS, 1_000, used=2_000), None),
        (refused(Unit.USD, 0, used=50), None),
        (refused(Unit.INPUT_TOKENS, 10), None),
        (refused(Unit.REQUESTS, 1, used=1), None),
        (refused(Unit.TOOL_CALLS, 1, used=1), None),
    ],
)
def test_an_uncapped_call_is_cut_to_what_is_left_or_not_at_all(refusal: Refused, cap: int | None) -> None:
    smaller = quote(100, None, 2, [CHEAP]).shrunk(refusal)
    assert (smaller and smaller.cap) == cap


HEDGED, RESUMED, BOTH = Tries(2, 2), Tries(2, 1), Tries(3, 2)


@pytest.mark.parametrize(
    ("tries", "worst"),
    [
        (HEDGED, Amount(micro_usd=202, tokens=300, input_tokens=200, output_tokens=100, requests=1)),
        (RESUMED, Amount(micro_usd=177, tokens=300, input_tokens=250, output_tokens=50, requests=1)),
        (BOTH, Amount(micro_usd=278, tokens=450, input_tokens=350, output_tokens=100, requests=1)),
    ],
)
def test_what_several_tries_may_cost_is_held_each_rounded_up_by_itself(tries: Tries, worst: Amount) -> None:
    """A prompt costs 50.5 micro-dollars, and so 51; with its reply 100.5, and so 101; that read again 76."""
    held = quote(100, 50, 1, [Price.of(Rates(input=505_000, output=MICRO))], tries=tries)
    assert held.amount() == structs.replace(worst, concurrency=1)
    assert held.floor() == Amount(micro_usd=51, tokens=100, input_tokens=100, requests=1)


@pytest.mark.parametrize("tries", [HEDGED, RESUMED, BOTH])
def test_a_call_does_without_a_second_try_before_its_reply_is_cut_short(tries: Tries) -> None:
    worst = quote(100, None, 2, [CHEAP], tries=tries)
    alone = quote(100, None, 2, [CHEAP])
    for unit, one in [(Unit.TOKENS, 2_100), (Unit.USD, 4_100), (Unit.INPUT_TOKENS, 100)]:
        assert worst.shrunk(refused(unit, one)) == alone
    assert worst.shrunk(refused(Unit.TOKENS, 1_000, used=400, held=100)) == structs.replace(alone, cap=200)
    assert worst.shrunk(refused(Unit.USD, 1_000)) == structs.replace(alone, cap=225)
    assert worst.shrunk(refused(Unit.USD, 99)) is None
    assert worst.shrunk(refused(Unit.REQUESTS, 1, used=1)) is None


def test_a_capped_call_does_without_a_second_try_and_keeps_its_cap() -> None:
    worst = quote(100, 50, 1, [CHEAP], tries=HEDGED)
    assert worst.shrunk(refused(Unit.TOKENS, 150)) == quote(100, 50, 1, [CHEAP])
    assert worst.shrunk(refused(Unit.TOKENS, 149)) is None


counts = st.integers(0, 10**6)
rates = st.integers(0, 10**9)
priced = st.builds(
    Price.of,
    st.builds(
        Rates, input=rates, output=rates, cached=rates, cache_write=rates, reasoning=rates, audio_input=rates
    ),
    max_output=st.integers(1, 10**6),
)
quotes = st.builds(quote, counts, st.none(), st.integers(1, 8), st.lists(st.none() | priced, max_size=3))


@given(quotes, st.sampled_from(Unit), st.integers(0, 10**12), counts, counts)
def test_what_is_cut_fits_and_is_the_largest_that_does(
    worst: Quote, unit: Unit, maximum: int, used: int, held: int
) -> None:
    smaller = worst.shrunk(refused(unit, maximum, used, held))
    left = maximum - used - held
    if smaller is None:
        return
    assert LEAST_OUTPUT <= smaller.cap < worst.cap
    assert smaller.amount().get(unit) <= left
    assert structs.replace(smaller, cap=smaller.cap + 1).amount().get(unit) > left


@given(quotes, st.sampled_from([ONE, HEDGED, RESUMED, BOTH]))
def test_every_quote_makes_a_hold(worst: Quote, tries: Tries) -> None:
    worst = structs.replace(worst, tries=tries)
    Hold("id", (), worst.amount(), worst.floor(), 1)


sized = st.builds(
    quote,
    counts,
    st.integers(0, 10**6),
    st.just(1),
    st.lists(priced, min_size=1, max_size=3),
    tries=st.sampled_from([RESUMED, BOTH]),
)


@given(sized, st.data())
def test_a_hold_for_a_reply_that_may_go_on_elsewhere_covers_reading_what_was_said(
    held: Quote, data: st.DataObject
) -> None:
    """The target that goes on is sent the prompt and what came of the reply before, as input."""
    said = data.draw(st.integers(0, held.cap))
    tries = [(held.input, said), (held.input + said, held.cap - said)]
    if held.tries == BOTH:
        tries.append((held.input, held.cap))
    amount = held.amount()
    assert sum(given for given, _ in tries) <= amount.input_tokens
    assert sum(given + made for given, made in tries) <= amount.tokens
    for places in itertools.product(held.prices, repeat=len(tries)):
        pairs = zip(places, tries, strict=True)
        cost = sum(price.micro_usd(Usage(input=given, output=made)) for price, (given, made) in pairs)
        assert cost <= amount.micro_usd or amount.micro_usd == 2**53


def test_a_reply_that_goes_on_may_make_a_prompt_long_enough_to_be_dearer() -> None:
    bands = (Band(120, Rates(input=9 * MICRO, output=9 * MICRO)), Band(0, Rates(input=MICRO, output=MICRO)))
    steps = Price({"": bands})
    assert quote(100, 20, 1, [steps]).amount().micro_usd == 120
    assert quote(100, 20, 1, [steps], tries=RESUMED).amount().micro_usd == 240
    assert quote(100, 21, 1, [steps], tries=RESUMED).amount().micro_usd == 9 * (121 + 121)


@given(quotes, counts, counts)
def test_a_hold_for_two_tries_covers_both_wherever_they_go_and_whatever_each_says(
    worst: Quote, first: int, second: int
) -> None:
    held = structs.replace(worst, tries=HEDGED).amount().micro_usd
    for one, other in itertools.product(worst.prices, repeat=2):
        winner = one.micro_usd(Usage(input=worst.input, output=min(first, worst.cap)))
        loser = other.micro_usd(Usage(input=worst.input, output=min(second, worst.cap)))
        assert winner + loser <= held or held == 2**53


def test_absurd_prices_and_sizes_stay_within_a_counter() -> None:
    absurd = Price.of(Rates.plain(10**40, 10**40), max_output=10**30)
    worst = quote(10**7, None, 1_000, [absurd]).amount()
    assert max(worst.values()) <= 2**53
    assert worst.micro_usd > 10**9 * 10**6, "no limit that can be set has room for it"


@pytest.mark.parametrize(
    ("unit", "counted"), [(unit, unit in ("usd", "tokens", "input_tokens", "output_tokens")) for unit in Unit]
)
def test_prompts_are_counted_only_for_limits_that_need_it(unit: Unit, *, counted: bool) -> None:
    limit = Limit("l", Scope(), window_named("day"), {unit: 1})
    assert counts_tokens([Bound(limit, "key", None)]) is counted
    assert not counts_tokens([])


# Settling

PROMPT = PER_REPLY + PER_MESSAGE + 2
"""Tokens of `hello world`, asked by one message."""


def settler() -> Settler:
    return Settler(PriceBook(PRICES), TokenCounter())


def exchange(*events: object, model: str = "m") -> Exchange:
    body = body_of({"role": "user", "content": "hello world"})
    call = Exchange("id", 1, OPENAI_CHAT, clock0=0.0, body=body, request=OPENAI_CHAT.parse(body))
    call.provider, call.served_model = "openai", model
    for event in events:
        call.assembly.add(event)  # type: ignore[arg-type]
    return call


async def test_a_whole_reply_is_charged_as_reported_zero_included() -> None:
    reported = Usage(input=50, output=20)
    spent = await settler().finished(exchange(Text(0, "hi"), UsageSeen(reported)))
    assert spent == Spent(reported, 50 + 40, CostLabel.REPORTED, price=VERSION)
    nothing = await settler().finished(exchange(Text(0, "hi"), UsageSeen(Usage())))
    assert nothing == Spent(Usage(), 0, CostLabel.REPORTED, price=VERSION)


async def test_a_reply_without_usage_is_counted() -> None:
    spent = await settler().finished(exchange(Text(0, "hello world")))
    assert spent == Spent(Usage(input=PROMPT, output=2), PROMPT + 4, CostLabel.ESTIMATED, price=VERSION)


async def test_a_prompt_is_counted_the_same_before_and_after() -> None:
    call = exchange()
    call.body = body_of(
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        },
        {"role": "assistant", "content": "hello"},
        tools=[{"type": "function", "function": {"name": "f"}}],
        response_format={"type": "text"},
    )
    call.request = OPENAI_CHAT.parse(call.body)
    reader = Reader(Addresser(1, b"s" * 32), TokenCounter())
    intake = await reader.read(call.request, OPENAI_CHAT, count=True)
    assert await settler().prompt(call) == intake.tokens
    call.intake = intake
    assert await settler().prompt(call) == intake.tokens


async def test_an_unpriced_reply_costs_nothing_and_says_so() -> None:
    spent = await settler().finished(exchange(Text(0, "hello world"), model="unheard-of"))
    assert spent == Spent(Usage(input=PROMPT, output=2), 0, CostLabel.UNPRICED)


async def test_a_cut_reply_is_charged_for_what_was_seen_at_least() -> None:
    unreported = await settler().cut(exchange(Text(0, "hello world")))
    assert unreported == Spent(Usage(input=PROMPT, output=2), PROMPT + 4, CostLabel.PARTIAL, price=VERSION)
    early = Usage(input=90, cached=60, cache_write=20, output=1, reasoning=1)
    spent = await settler().cut(exchange(UsageSeen(early), Text(0, "hello world" + " hello world" * 9)))
    assert spent.usage == Usage(input=90, cached=60, cache_write=20, output=20, reasoning=1)
    assert spent.label is CostLabel.PARTIAL
    late = Usage(input=90, output=500)
    assert (await settler().cut(exchange(UsageSeen(late), Text(0, "hi")))).usage == late


@pytest.mark.parametrize(("charge", "output"), [(Charge.MAYBE, 0), (Charge.USED, 2)])
async def test_a_lost_try_is_charged_for_what_may_have_been(charge: Charge, output: int) -> None:
    assembly = Assembly()
    assembly.add(Text(0, "hello world"))
    spent = await settler().lost(exchange(), LostTry(assembly, charge, "openai", "m"))
    assert spent == Spent(
        Usage(input=PROMPT, output=output), PROMPT + 2 * output, CostLabel.PARTIAL, price=VERSION
    )
    assembly.add(UsageSeen(Usage(input=7, output=7)))
    spent = await settler().lost(exchange(), LostTry(assembly, charge, "openai", "m"))
    assert (spent.usage.total, spent.label) == (14, CostLabel.REPORTED)


async def test_absurd_usage_is_cut_to_what_a_counter_can_hold() -> None:
    spent = await settler().finished(exchange(UsageSeen(Usage(input=10**30, output=10**30, reasoning=5))))
    assert spent.usage.reasoning == 5
    assert max(amount(spent, requests=1).values()) <= 2**53


def test_the_amount_charged_is_the_usage() -> None:
    spent = Spent(Usage(input=5, output=7, cached=3, reasoning=2), 9, CostLabel.REPORTED)
    assert amount(spent, requests=1) == Amount(
        micro_usd=9, tokens=12, input_tokens=5, output_tokens=7, requests=1
    )


def part(label: CostLabel | None, cost: int = 1) -> Spent:
    return Spent(Usage(input=1, output=2, cached=3, cache_write=4, reasoning=5), cost, label)


def test_lost_tries_are_added_and_the_weakest_label_is_kept() -> None:
    whole = part(CostLabel.REPORTED, 10)
    assert total(whole, []) is whole
    both = total(whole, [part(CostLabel.PARTIAL, 5)])
    assert both == Spent(
        Usage(input=2, output=4, cached=6, cache_write=8, reasoning=10), 15, CostLabel.PARTIAL
    )
    assert total(whole, [part(CostLabel.REPORTED)]).label is CostLabel.REPORTED
    assert total(part(CostLabel.ESTIMATED), [part(CostLabel.REPORTED)]).label is CostLabel.ESTIMATED
    assert total(whole, [part(CostLabel.UNPRICED, 0)]).label is CostLabel.UNPRICED


def test_a_call_that_spent_nothing_itself_is_charged_for_its_lost_tries_alone() -> None:
    assert total(Spent(), []) == Spent()
    assert total(Spent(), [part(CostLabel.PARTIAL, 5)]) == part(CostLabel.PARTIAL, 5)
