"""A caller's own deadline shortens a call, its retries and its waits, and lengthens nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Attempt, CallView, CostLabel
from tests.e2e.scripted_house import House
from tests.e2e.timed_house import timed_house
from tests.proxy import ask, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 20.0
"""Whatever should end at a deadline of a second at most has ended by then; without it it would take 60 s."""
TEXT = "one two three four five six seven eight"
PROMPT = 8
"""Tokens that `ask()` is counted as; a micro-dollar each."""
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
SCRIPT = f"""
models:
  good: {{turns: [{{text: {TEXT}, usage: {{input: 40, output: 9}}}}]}}
  silent: {{turns: [{{text: {TEXT}, latency_s: 60}}]}}
  short: {{turns: [{{text: {TEXT}, latency_s: 60}}]}}
  stalls: {{turns: [{{text: {TEXT}, stall_after: 4}}]}}
  once-silent:
    turns:
      - {{text: {TEXT}, latency_s: 60, fail_times: 1}}
      - {{text: {TEXT}, usage: {{input: 40, output: 9}}}}
  broken: {{turns: [{{status: 500}}]}}
  busy: {{turns: [{{status: 429, retry_after: 6}}]}}
  busy-then-good: {{turns: [{{status: 429, retry_after: 6}}]}}
"""
SETTINGS: dict[str, dict[str, Any]] = {
    "short": {"timeouts": {"total_s": 0.5}},
    "once-silent": {"breaker": {"failures": 1}},
    "broken": {"retries": 10, "breaker": {"failures": 1000}},
    "busy": {"retries": 2},
    "busy-then-good": {"retries": 2, "fallbacks": ["good"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with timed_house(tmp_path_factory.mktemp("time"), SCRIPT, SETTINGS, PRICE) as opened:
        yield opened


@dataclass
class Heard:
    """What an SDK user has in the end."""

    view: CallView
    text: str = ""
    told: tuple[int | None, str | None] | None = None
    """The error's status, None inside a stream, and its code."""
    headers: Any = None

    @property
    def attempts(self) -> list[tuple[str, str]]:
        return [(attempt.target, attempt.failure) for attempt in self.view.attempts]


async def _call(house: House, model: str, stream: bool, **deadline: str) -> Heard:
    proxy = house.proxy
    sent = {name.replace("_", "-"): value for name, value in deadline.items()}
    async with proxy.sdk(default_headers=sent) as sdk, asyncio.timeout(PATIENCE_S):
        try:
            raw = await sdk.chat.completions.with_raw_response.create(**ask(model=model, stream=stream))
        except openai.APIStatusError as error:
            answer = error.response.headers
            return Heard(
                proxy.view(answer["x-call-id"]), told=(error.status_code, error.code), headers=answer
            )
        text, told = "", None
        if stream:
            try:
                async for chunk in raw.parse():
                    text += "".join(choice.delta.content or "" for choice in chunk.choices)
            except openai.APIError as error:
                told = (None, error.code)
        else:
            text = raw.parse().choices[0].message.content or ""
        await proxy.settled()
        return Heard(proxy.view(raw.headers["x-call-id"]), text, told, raw.headers)


DEADLINES = [{"x_request_timeout": "0.8"}, {"x_litellm_timeout": "0.8"}, {"x_portkey_request_timeout": "800"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("deadline", DEADLINES, ids=lambda deadline: next(iter(deadline)))
async def test_a_callers_deadline_ends_its_call(house: House, deadline: dict[str, str], stream: bool) -> None:
    gone = house.upstream.stats.client_gone
    heard = await _call(house, "silent", stream, **deadline)
    assert heard.told == (504, "upstream_timeout")
    assert heard.attempts == [("silent", "total_timeout")]
    assert (heard.view.cost_micro_usd, heard.view.cost_label) == (PROMPT, CostLabel.PARTIAL)
    async with asyncio.timeout(PATIENCE_S):
        await house.upstream.until(lambda stats: stats.client_gone > gone)


async def test_a_deadline_in_the_middle_of_a_stream(house: House) -> None:
    heard = await _call(house, "stalls", stream=True, x_request_timeout="1")
    assert (heard.text, heard.told) == ("one two three", (None, "upstream_timeout"))
    assert heard.attempts == [("stalls", "total_timeout")]
    assert heard.view.usage is not None
    assert (heard.view.usage.input, heard.view.usage.output) == (PROMPT, 3)
    assert (heard.view.cost_micro_usd, heard.view.cost_label) == (PROMPT + 2 * 3, CostLabel.PARTIAL)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_is_kept_changes_nothing(house: House, stream: bool) -> None:
    heard = await _call(house, "good", stream, x_request_timeout="30")
    assert (heard.text, heard.told, heard.attempts) == (TEXT, None, [("good", "")])
    assert "x-request-timeout" not in house.upstream.seen[-1].headers, "it is for the proxy alone"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_can_not_lengthen_total_s(house: House, stream: bool) -> None:
    heard = await _call(house, "short", stream, x_request_timeout="86400")
    assert (heard.told, heard.attempts) == ((504, "upstream_timeout"), [("short", "total_timeout")])


async def test_a_deadline_that_has_passed_asks_nobody(house: House) -> None:
    total, before = house.upstream.stats.total, house.proxy.used("day", "micro_usd")
    heard = await _call(house, "good", stream=False, x_portkey_request_timeout="0.001")
    assert (heard.told, heard.attempts) == ((504, "upstream_timeout"), [])
    assert (house.upstream.stats.total, house.proxy.used("day", "micro_usd")) == (total, before)


async def test_a_short_deadline_is_not_the_targets_fault(house: House) -> None:
    """One failure would open this target's breaker."""
    heard = await _call(house, "once-silent", stream=False, x_request_timeout="0.8")
    assert heard.told == (504, "upstream_timeout")
    heard = await _call(house, "once-silent", stream=False)
    assert (heard.text, heard.attempts) == (TEXT, [("once-silent", "")])


BAD = ["", "0", "0.0", "-1", "soon", "1e3", "inf", "nan", "1,5", "5s", "0x10", "12345678901"]


@pytest.mark.parametrize("name", ["x-request-timeout", "x-litellm-timeout", "x-portkey-request-timeout"])
async def test_a_deadline_that_is_no_number_is_refused(house: House, name: str) -> None:
    total, told = house.upstream.stats.total, {}
    async with aiohttp.ClientSession() as http:
        for value in BAD:
            sent = {**headers(), name: value}
            async with http.post(house.proxy.url, json=ask(model="good"), headers=sent) as reply:
                error = (await reply.json())["error"]
                told[value] = (reply.status, error["code"], error["param"])
                assert name in error["message"]
    assert told == dict.fromkeys(BAD, (400, "invalid_request", name))
    assert house.upstream.stats.total == total


@pytest.mark.parametrize("stream", [False, True])
async def test_retries_stop_at_the_deadline(house: House, stream: bool) -> None:
    """Ten retries would take over half a minute."""
    heard = await _call(house, "broken", stream, x_request_timeout="1.5")
    attempts = list(heard.attempts)
    if attempts[-1] == ("broken", "total_timeout"):  # a retry that began in time was under way
        assert heard.told == (504, "upstream_timeout")
        attempts.pop()
    else:
        assert heard.told == (502, "upstream_failed")
    assert 2 <= len(attempts) <= 5
    assert set(attempts) == {("broken", "server_error")}
    assert heard.view.cost_micro_usd == 0


def _all_began_by(attempts: tuple[Attempt, ...], seconds: float) -> bool:
    return all(attempt.started_s <= seconds for attempt in attempts)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_after_past_the_deadline_is_not_waited_for(house: House, stream: bool) -> None:
    """The caller is told at once to come back, and not by a timeout that nothing could cure."""
    heard = await _call(house, "busy", stream, x_request_timeout="3")
    if heard.attempts:
        assert (heard.told, heard.attempts) == ((503, "upstream_unavailable"), [("busy", "rate_limited")])
    else:  # it rests since the call before
        assert heard.told == (503, "upstream_unavailable")
    assert 1 <= int(heard.headers["retry-after"]) <= 6
    assert _all_began_by(heard.view.attempts, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_after_past_the_deadline_goes_to_the_next_target(house: House, stream: bool) -> None:
    heard = await _call(house, "busy-then-good", stream, x_request_timeout="3")
    assert heard.text == TEXT
    assert heard.attempts[-1] == ("good", "")
    assert _all_began_by(heard.view.attempts, 3)
