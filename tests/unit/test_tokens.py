"""Counting tokens offline, in pieces, and off the event loop where there is much of it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.counting.text import TokenCounter


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    made = TokenCounter()
    asyncio.run(made.ready())
    return made


def test_known_texts_have_known_counts(counter: TokenCounter) -> None:
    assert counter.count_now(("hello world",)) == 2
    assert counter.count_now(("hello world", "", "hello")) == 3
    assert counter.count_now(()) == 0


def test_the_names_of_special_tokens_are_plain_text(counter: TokenCounter) -> None:
    assert counter.count_now(("<|endoftext|>",)) > 1


@given(st.text(max_size=300))
def test_no_text_is_free_and_none_costs_more_than_its_bytes(counter: TokenCounter, text: str) -> None:
    count = counter.count_now((text,))
    assert bool(count) is bool(text)
    assert count <= len(text.encode())


@pytest.mark.parametrize("text", ["a" * 60_000, " " * 60_000, "é" * 60_000, "word " * 12_000], ids=repr)
def test_long_texts_are_counted_in_pieces_and_nearly_exactly(counter: TokenCounter, text: str) -> None:
    half = len(text) // 2
    whole, halves = counter.count_now((text,)), counter.count_now((text[:half], text[half:]))
    assert abs(whole - halves) <= 2
    assert 0 < whole <= len(text.encode())


async def test_before_it_is_loaded_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="ready"):
        TokenCounter().count_now(("x",))


async def test_counting_loads_once_and_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise AssertionError("no network is needed")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fresh = TokenCounter()
    assert await asyncio.gather(*(fresh.count(("hello world",)) for _ in range(5))) == [2] * 5
    encodings = dict(fresh._encodings)
    await fresh.ready()
    assert fresh._encodings == encodings


async def test_much_text_is_counted_off_the_event_loop(counter: TokenCounter) -> None:
    ran: list[str] = []

    async def beside(what: str) -> None:
        ran.append(what)

    for size, others in ((100, []), (30_000, ["large"])):
        ran.clear()
        task = asyncio.create_task(beside("large"))
        await counter.count(("word " * size,))
        assert ran == others, f"{size} words"
        await task
