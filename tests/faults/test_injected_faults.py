"""Five hundred calls at three targets, two of which keep failing: all are answered, and the money adds up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_proxy.records.view import CallView, CostLabel, Status
from tests.faults.injecting import WORKED, Injecting, injecting, text_of
from tests.proxy import ProxyProcess, ask, config, target

AT_ONCE = 16
ROUNDS = (range(100, 334), range(334, 366), range(366, 600))
"""The calls, by number. In the second round two targets refuse connections."""
WEIGHTS = {"a": 2, "b": 2, "c": 1}


def _config(targets: Mapping[str, Injecting], strategy: str) -> dict[str, Any]:
    listed = [target(id_, targets[id_].base_url) | {"weight": weight} for id_, weight in WEIGHTS.items()]
    model: dict[str, Any] = {
        "targets": listed,
        "strategy": strategy,
        "breaker": {"failures": 5, "cool_down_s": 0.05},
        "timeouts": {"first_event_s": 12},
    }
    budget = {"id": "day", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7}
    return config("", models={"m": model}, budgets=[budget])


async def _call(sdk: openai.AsyncOpenAI, number: int) -> str:
    """The text of the answer; every second call is streamed."""
    asked = ask(f"call {number}")
    if number % 2:
        reply = await sdk.chat.completions.create(**asked)
        return reply.choices[0].message.content or ""
    text = ""
    async for chunk in await sdk.chat.completions.create(**asked, stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text


async def _round(sdk: openai.AsyncOpenAI, numbers: Sequence[int]) -> dict[int, str]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[int, str]:
        async with places:
            return number, await _call(sdk, number)

    return dict(await asyncio.gather(*map(one, numbers)))


async def _all_calls(sdk: openai.AsyncOpenAI, failing: Sequence[Injecting]) -> dict[int, str]:
    """What each call was answered; an error that the SDK was told of is raised."""
    before, refused, after = ROUNDS
    answers = await _round(sdk, before)
    for each in failing:
        each.refuse()
    answers |= await _round(sdk, refused)
    for each in failing:
        await each.listen()
    return answers | await _round(sdk, after)


def _failures(views: Sequence[CallView], id_: str) -> Counter[str]:
    """How the attempts at one target ended; an empty name is success."""
    return Counter(attempt.failure for view in views for attempt in view.attempts if attempt.target == id_)


def _label(view: CallView) -> CostLabel:
    guessed = any(attempt.failure in WORKED for attempt in view.attempts)
    return CostLabel.PARTIAL if guessed else CostLabel.REPORTED


@pytest.mark.parametrize(
    "strategy",
    ["ordered", *(pytest.param(other, marks=pytest.mark.soak) for other in ("weighted", "least-latency"))],
)
async def test_every_call_is_answered_and_every_charge_is_known(tmp_path: Path, strategy: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        seeds = {"a": "a of 4", "b": "b of 4", "c": None}
        targets = {id_: await stack.enter_async_context(injecting(seed)) for id_, seed in seeds.items()}
        proxy = await stack.enter_async_context(ProxyProcess(tmp_path, _config(targets, strategy)))
        sdk = await stack.enter_async_context(proxy.sdk())
        answers = await _all_calls(sdk, [targets["a"], targets["b"]])
        assert answers == {number: text_of(number) for number in range(100, 600)}
        await proxy.settled()
        views = proxy.views()

        assert [view.status for view in views] == [Status.OK] * 500
        assert [view.cost_label for view in views] == [_label(view) for view in views]
        refused = 0
        for id_, each in targets.items():
            recorded, books = _failures(views, id_), each.books
            refused += recorded.pop("connect_refused", 0)
            assert recorded.total() == books.asked
            del recorded[""]
            assert recorded == books.failed
        assert refused > 0
        assert sum(each.books.failed.total() for each in targets.values()) > 30

        charged = sum(each.books.micro_usd for each in targets.values())
        assert sum(view.cost_micro_usd for view in views) == charged
        assert proxy.used("day", "micro_usd") == charged
        assert proxy.used("day", "tokens") == sum(each.books.tokens for each in targets.values())
        assert proxy.used("day", "requests") == 500
        assert proxy.held_amounts() == 0
