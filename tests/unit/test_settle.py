"""What a call is held and charged for where a part of its prompt or its tier can't be known: bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import Text
from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.prompt import MOST_FILE, within
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import tokenizer_of
from llm_proxy.exchange import Exchange
from llm_proxy.intake import Reader
from llm_proxy.measuring import held_tokens, ways_of
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.price import Price
from llm_proxy.pricing.rates import Rates
from llm_proxy.records.blobs import Addresser
from llm_proxy.settle import Settler
from llm_proxy.wire.caching import asks_for_an_hour
from llm_proxy.wire.dialects import DIALECTS
from routing.targets import Route, RouteTable, Target

COUNTER = TokenCounter()
CHAT, RESPONSES, MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"
ROW = {
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 2e-6,
    "input_cost_per_token_priority": 3e-6,
    "output_cost_per_token_priority": 6e-6,
    "max_input_tokens": 50_000,
}
BOOK = PriceBook({"m": ROW})


async def call(dialect: str, *, count: bool = True, **fields: Any) -> Exchange:
    """A call to one target, whose model takes 50,000 tokens."""
    spoken = DIALECTS[dialect]
    body = json.dumps({"model": "m", "max_tokens": 5} | fields).encode()
    exchange = Exchange("id", 1, spoken, clock0=0.0, body=body, request=spoken.parse(body))
    exchange.provider, exchange.served_model = "openai", "m"
    assert exchange.request is not None
    reader = Reader(Addresser(1, b"s" * 32), COUNTER)
    exchange.intake = await reader.read(
        exchange.request, spoken, count=count, ways=ways_of(route("openai", "m"))
    )
    return exchange


def route(*targets: str) -> Any:
    pairs = zip(targets[::2], targets[1::2], strict=True)
    listed = tuple(Target(f"t{n}", provider, model) for n, (provider, model) in enumerate(pairs))
    return RouteTable([Route("m", listed)]).resolve("m")


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


FILE = {"type": "file", "file": {"file_id": "file-1"}}
UNREAD: dict[str, tuple[str, dict[str, Any]]] = {
    "a file by id": (CHAT, {"messages": [user({"type": "text", "text": "hi"}, FILE)]}),
    "a file by URL": (
        MESSAGES,
        {"messages": [user({"type": "document", "source": {"type": "url", "url": "https://example.com/a"}})]},
    ),
    "a conversation": (RESPONSES, {"input": "hi", "conversation": "conv_1"}),
    "two files": (CHAT, {"messages": [user(FILE, FILE)]}),
}


@pytest.mark.parametrize("case", UNREAD)
async def test_what_nobody_read_is_held_and_charged_as_no_more_than_the_model_takes(case: str) -> None:
    dialect, fields = UNREAD[case]
    exchange = await call(dialect, **fields)
    assert exchange.intake is not None
    assert (exchange.intake.tokens or 0) > MOST_FILE
    known, unknown = BOOK.find("openai", "m"), Price.of(Rates(input=1))
    assert known is not None
    errors = TokenErrors()
    assert held_tokens(exchange, route("openai", "m"), errors, [known]) == 50_000
    assert held_tokens(exchange, route("openai", "m"), errors, [unknown]) == exchange.intake.tokens
    assert held_tokens(exchange, route("openai", "m"), errors, [None]) == exchange.intake.tokens
    both = route("openai", "m", "openai", "other")
    assert held_tokens(exchange, both, errors, [known, None]) == exchange.intake.tokens
    settler = Settler(BOOK, COUNTER)
    assert await settler.prompt(exchange) == 50_000
    assert (await settler.cut(exchange)).usage.input == 50_000
    uncounted = await call(dialect, count=False, **fields)
    assert await settler.prompt(uncounted) == 50_000
    exchange.served_model = "unpriced"
    assert await settler.prompt(exchange) == exchange.intake.tokens


async def test_what_was_read_is_held_whatever_a_table_says_of_the_model() -> None:
    text = {"type": "text", "text": "word " * 60_000}
    plain, filed = await call(CHAT, messages=[user(text)]), await call(CHAT, messages=[user(text, FILE)])
    price, errors = BOOK.find("openai", "m"), TokenErrors()
    assert plain.intake is not None
    read = plain.intake.tokens
    for exchange in (plain, filed):
        assert held_tokens(exchange, route("openai", "m"), errors, [price]) == read
        assert await Settler(BOOK, COUNTER).prompt(exchange) == read
    errors.observe(error_key("openai", "m"), 1_000, 1_500)
    assert held_tokens(filed, route("openai", "m"), errors, [price]) == pytest.approx(
        1.5 * (read or 0), rel=0.01
    )


@given(st.none() | st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_bound_is_cut_to_the_window_and_never_below_what_was_read(
    window: int | None, read: int, guessed: int
) -> None:
    tokens = within(window, read + guessed, read)
    assert read <= tokens <= read + guessed
    assert tokens == read + guessed or (window is not None and tokens == max(window, read))


def test_each_target_has_its_own_way_to_count() -> None:
    assert ways_of(route("openai", "gpt-4o", "anthropic", "claude-haiku-4-5")) == {
        tokenizer_of("openai", "gpt-4o"),
        tokenizer_of("anthropic", "claude-haiku-4-5"),
    }


@pytest.mark.parametrize(
    ("asked", "dropped", "tier"),
    [
        ({"speed": "fast"}, (), "priority"),
        ({"speed": "fast"}, ("speed",), ""),
        ({"service_tier": "priority"}, ("speed",), "priority"),
        ({"service_tier": "priority"}, ("service_tier",), ""),
        ({"service_tier": "priority", "speed": "fast"}, ("service_tier", "speed"), ""),
        ({"service_tier": "priority", "speed": "fast"}, ("speed",), "priority"),
    ],
)
async def test_an_estimate_is_not_in_a_tier_of_which_the_target_was_not_told(
    asked: dict[str, Any], dropped: tuple[str, ...], tier: str
) -> None:
    exchange = await call(MESSAGES, messages=[user({"type": "text", "text": "hi"})], **asked)
    exchange.dropped = dropped
    exchange.assembly.add(Text(0, "hello world"))
    spent = await Settler(BOOK, COUNTER).finished(exchange)
    assert spent.tier == tier
    assert spent.micro_usd == (3 if tier else 1) * (spent.usage.input + 2 * spent.usage.output)


MARK = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (json.dumps({"system": [{"type": "text", "text": "x", "cache_control": MARK}]}).encode(), True),
        (json.dumps({"cache_control": MARK}, indent=2).encode(), True),
        (b'{"cache_control":{"ttl"\n:\t"1h"}}', True),
        (b'{"cache_control":{"t\\u0074l":"\\u0031h"}}', True),
        (b'{"cache_control":{"ttl":"1\\u0068"}}', True),
        (b'{"cache_control":{"ttl":"\\u0031\\u0068"}}', True),
        (json.dumps({"cache_control": MARK | {"ttl": "5m"}}).encode(), False),
        (json.dumps({"messages": [user({"type": "text", "text": 'say "1h"'})]}).encode(), False),
        (b'{"a":"11h","b":"1hr","c":1}', False),
        (b"", False),
    ],
)
def test_an_hour_in_the_cache_is_found_however_it_is_spelled(body: bytes, *, asks: bool) -> None:
    assert asks_for_an_hour(body) is asks
