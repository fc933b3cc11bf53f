"""A second target beside a silent one: who answers, who is hung up on, what it costs, and when there is none.

Every model `X` has the targets `X-1` and `X-2`, which act on each other's cues, so that no test rests on how
fast the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from tests.e2e.staged import NEVER, Act, Staged, chunk, failed, said, staged
from tests.proxy import OTHER_KEY, ProxyProcess, ask, config, headers, target, until
from tests.raw_upstream import events, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

AFTER_S = 0.05
PROMPT = 8
"""Tokens that `ask()` is counted as; a micro-dollar each, and two for one of a reply."""
GOOD = 20 + 2 * 6
"""What a good reply costs, by the usage it reports."""
MOST = 10
"""Output tokens, where a test names a cap."""
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "rm", "arguments": "{}"}}


def _good(name: str, *, stream: bool, **more: Any) -> Act:
    return said(f"from {name}", stream=stream, id_=name, **more)


def _acts(stream: bool) -> dict[str, tuple[Act, Act]]:
    """What each model's two targets do."""
    first, second = _good("one", stream=stream), _good("two", stream=stream)
    broken = events(chunk(delta={"role": "assistant"})) if stream else whole(b"{")
    head = b"HTTP/1.1 200 OK\r\nx-request-id: one\r\ncontent-type: text/event-stream\r\n\r\n"
    return {
        "second": ([NEVER], second),
        "first": (["asked:first-2", *first], [NEVER]),
        "at-once": (first, second),
        "both-fail": (["asked:both-fail-2", *failed("500 X")], ["done:both-fail-1", *failed("503 X")]),
        "first-fails": (["asked:first-fails-2", *failed("500 X")], ["done:first-fails-1", *second]),
        "second-fails": (["done:second-fails-2", *first], failed("500 X")),
        "refused": (["asked:refused-2", *failed("400 X")], ["done:refused-1", *failed("503 X")]),
        "broken": (["asked:broken-2", *broken], ["done:broken-1", *second]),
        "head": (["asked:head-2", head if stream else b"", NEVER], [0.1, *second]),
        "tools": ([NEVER], _good("", stream=stream, calls=[CALL])),
        "silent": ([NEVER], [NEVER]),
        "starts": ([NEVER], events(chunk(delta={"content": "so"}), 60) if stream else [NEVER]),
        "cut": ([NEVER], events(chunk(delta={"content": "so"}), 0.05, b"data: {\n\n")),
        "alone": ([0.3, *first], second),
        "poor": ([0.3, *first], second),
        "raw": ([0.3, *whole(b"{}")], whole(b"{}")),
        "learns": (first, second),
        "warm": ([NEVER], second),
    }


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Staged
    stream: bool

    def view(self, run: str) -> CallView:
        (view,) = self.proxy.views(run=run)
        return view

    def asked(self, model: str) -> list[str]:
        """Which of its targets were, in order."""
        return [
            name.removeprefix(f"{model}-") for name in self.upstream.asked if name.startswith(f"{model}-")
        ]

    async def hung_up_on(self, *names: str) -> None:
        await until(lambda: set(names) <= set(self.upstream.gone), f"the proxy hung up on {names}")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["whole", "streamed"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    stream: bool = request.param
    acts = _acts(stream)

    def act(name: str, asked: str) -> Act:
        if "be silent" in asked:
            return [NEVER]
        if "be slow" in asked:
            return [0.3, *_good("one", stream=stream)]
        model, _, number = name.rpartition("-")
        return acts[model][int(number) - 1]

    async with staged(act) as upstream:
        models: dict[str, Any] = {
            name: {
                "targets": [target(f"{name}-{n}", upstream.base_url, f"{name}-{n}") for n in (1, 2)],
                "retries": 0,
                "hedge_after": AFTER_S,
            }
            for name in acts
        }
        del models["alone"]["targets"][1:]
        models["at-once"]["hedge_after"] = 30
        models["learns"]["hedge_after"] = "p95"
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 100}
        settings = config(
            upstream.base_url,
            models=models,
            agents={
                "bot": {"team": "crew", "keys": ["sk-bot-0123456789abcdef"], "models": ["*"]},
                "poor": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            prices=dict.fromkeys([f"{name}-{n}" for name in acts for n in (1, 2)], price),
            budgets=[
                {"id": "day", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7},
                {"id": "purse", "agent": "poor", "window": "run", "tokens": 2 * (PROMPT + MOST) - 1},
            ],
        )
        policy = {"policy": {"id": "p", "version": 1}, "on_deny": "replace"}
        async with ProxyProcess(tmp_path_factory.mktemp("hedging"), settings, policy=policy) as proxy:
            yield House(proxy, upstream, stream)
            await proxy.settled()
        await until(lambda: upstream.open == 0, "no connection is left")
        assert proxy.held_amounts() == 0


@dataclass(frozen=True)
class Heard:
    status: int
    body: bytes
    headers: Any

    @property
    def text(self) -> str:
        return self.body.decode()


async def call(house: House, model: str, run: str = "", said: str = "hi", **more: Any) -> Heard:
    """One call over plain HTTP, its whole answer."""
    extra = {"x_run_id": run or model} | more.pop("extra", {})
    key = more.pop("key", None)
    sent = headers(key, **extra) if key else headers(**extra)
    asked = ask(said, **{"stream": house.stream, **more}) | {"model": model}
    async with (
        aiohttp.ClientSession() as http,
        http.post(house.proxy.url, json=asked, headers=sent) as reply,
    ):
        return Heard(reply.status, await reply.read(), reply.headers)


async def sdk_text(house: House, model: str) -> str:
    """What the official SDK makes of the reply."""
    request: dict[str, Any] = {**ask(), "model": model}
    async with house.proxy.sdk(default_headers={"x-run-id": model}) as sdk:
        if not house.stream:
            whole_ = await sdk.chat.completions.create(**request)
            return whole_.choices[0].message.content or ""
        stream = await sdk.chat.completions.create(**request, stream=True)
        deltas = [piece.choices[0].delta.content or "" async for piece in stream if piece.choices]
        return "".join(deltas).strip()


def told(view: CallView) -> dict[str, str]:
    """The failure of each attempt, by its target's number; empty for the one that answered."""
    assert len({attempt.target for attempt in view.attempts}) == len(view.attempts)
    return {attempt.target.rpartition("-")[2]: attempt.failure for attempt in view.attempts}


async def test_a_second_target_answers_for_a_silent_one(house: House) -> None:
    used, requests = house.proxy.used("day", "micro_usd"), house.proxy.used("day", "requests")
    assert await sdk_text(house, "second") == "from two"
    await house.hung_up_on("second-1")
    view = house.view("second")
    assert told(view) == {"1": "superseded", "2": ""}
    assert (view.status, view.target, view.served_model) == (Status.OK, "second-2", "second-2")
    assert (view.cost_micro_usd, view.cost_label) == (PROMPT + GOOD, CostLabel.PARTIAL)
    assert view.usage is not None
    assert (view.usage.input, view.usage.output) == (PROMPT + 20, 6)
    assert view.held["requests"] == 1
    assert (view.held["input_tokens"], view.held["output_tokens"]) == (2 * PROMPT, 2 * 100)
    assert view.held["micro_usd"] == 2 * (PROMPT + 2 * 100)
    assert house.proxy.used("day", "micro_usd") == used + PROMPT + GOOD
    assert house.proxy.used("day", "requests") == requests + 1


async def test_the_first_one_may_still_answer_first(house: House) -> None:
    assert await sdk_text(house, "first") == "from one"
    await house.hung_up_on("first-2")
    view = house.view("first")
    assert told(view) == {"1": "", "2": "superseded"}
    assert (view.status, view.target) == (Status.OK, "first-1")
    assert (view.cost_micro_usd, view.cost_label) == (PROMPT + GOOD, CostLabel.PARTIAL)


@pytest.mark.parametrize("model", ["at-once", "alone"])
async def test_no_second_target_is_asked_in_vain_or_where_there_is_none(house: House, model: str) -> None:
    heard = await call(house, model)
    assert heard.headers["x-served-by"] == f"{model}-1"
    assert house.asked(model) == ["1"]
    view = house.view(model)
    assert (view.cost_micro_usd, view.cost_label) == (GOOD, CostLabel.REPORTED)
    prompts = 1 if model == "alone" else 2
    assert view.held["input_tokens"] == prompts * PROMPT


async def test_what_is_heard_of_the_reply_is_of_its_own_target(house: House) -> None:
    """The other one's head had come already, and nothing behind it."""
    heard = await call(house, "head")
    assert "two" in heard.text
    assert (heard.headers["x-request-id"], heard.headers["x-served-by"]) == ("two", "head-2")
    assert told(house.view("head")) == {"1": "superseded", "2": ""}


async def test_both_fail(house: House) -> None:
    heard = await call(house, "both-fail")
    assert heard.status == 502
    assert "after 2 attempts; the last, 'both-fail-2': the target answered 503" in heard.text
    view = house.view("both-fail")
    assert told(view) == {"1": "server_error", "2": "server_error"}
    assert (view.status, view.target, view.cost_micro_usd) == (Status.FAILED, "both-fail-2", 0)
    assert house.asked("both-fail") == ["1", "2"]


@pytest.mark.parametrize(
    ("model", "broke", "answered"), [("first-fails", "1", "2"), ("second-fails", "2", "1")]
)
async def test_one_fails_and_the_other_goes_on(house: House, model: str, broke: str, answered: str) -> None:
    heard = await call(house, model)
    assert heard.headers["x-served-by"] == f"{model}-{answered}"
    view = house.view(model)
    assert told(view) == {broke: "server_error", answered: ""}
    assert (view.cost_micro_usd, view.cost_label) == (GOOD, CostLabel.REPORTED)
    assert house.asked(model) == ["1", "2"]


async def test_a_reply_that_is_not_whole_calls_nobody_off(house: House) -> None:
    heard = await call(house, "broken")
    assert heard.headers["x-served-by"] == "broken-2"
    view = house.view("broken")
    assert told(view) == {"1": "truncated" if house.stream else "malformed", "2": ""}
    assert (view.cost_micro_usd, view.cost_label) == (PROMPT + GOOD, CostLabel.PARTIAL)


async def test_a_refusal_of_the_request_itself_outweighs_the_other_ones_failure(house: House) -> None:
    heard = await call(house, "refused")
    assert (heard.status, heard.text) == (400, '{"error": {"message": "it is 400 X", "code": ""}}')
    view = house.view("refused")
    assert told(view) == {"1": "bad_request", "2": "server_error"}
    assert (view.target, view.cost_micro_usd) == ("refused-1", 0)


async def test_the_winners_tool_calls_are_judged_once(house: House) -> None:
    heard = await call(house, "tools", tools=[{"type": "function", "function": {"name": "rm"}}])
    assert "rm" in heard.text
    await house.hung_up_on("tools-1")
    view = house.view("tools")
    assert [(decision.tool, decision.decision) for decision in view.decisions] == [("rm", "deny")]
    assert told(view) == {"1": "superseded", "2": ""}
    assert view.cost_micro_usd == view.held["input_tokens"] // 2 + GOOD


@pytest.mark.parametrize("model", ["silent", "starts"])
async def test_a_caller_leaves_during_the_race(house: House, model: str) -> None:
    """Whoever was asked is hung up on, and charged for the prompt at least."""
    run = f"left-{model}"
    calling = asyncio.create_task(call(house, model, run))
    await until(lambda: house.asked(model) == ["1", "2"], "both are asked")
    if house.stream and model == "starts":
        await house.hung_up_on(f"{model}-1")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await house.hung_up_on(f"{model}-1", f"{model}-2")
    await house.proxy.settled()
    view = house.view(run)
    assert view.status is Status.CLIENT_GONE
    won = house.stream and model == "starts"
    assert told(view) == {"1": "superseded" if won else "client_gone", "2": "client_gone"}
    assert (view.cost_micro_usd, view.cost_label) == (2 * PROMPT + 2 * won, CostLabel.PARTIAL)


async def test_a_deadline_ends_both(house: House) -> None:
    heard = await call(house, "silent", "late", extra={"x_request_timeout": "0.5"})
    assert (heard.status, '"code":"upstream_timeout"' in heard.text) == (504, True)
    await house.hung_up_on("silent-1", "silent-2")
    view = house.view("late")
    assert told(view) == {"1": "total_timeout", "2": "total_timeout"}
    assert (view.status, view.cost_micro_usd) == (Status.FAILED, 2 * PROMPT)


async def test_a_winner_that_is_cut_leaves_nobody_to_go_on(house: House) -> None:
    """The other one was called off with its first word."""
    run = f"cut-{house.stream}"
    heard = await call(house, "cut", run, stream=True)
    assert heard.text.startswith('data: {"choices": [{"index": 0, "delta": {"content": "so"}}]}')
    assert '"code":"upstream_failed"' in heard.text
    assert house.asked("cut") == ["1", "2"]
    view = house.view(run)
    assert told(view) == {"1": "superseded", "2": "malformed"}
    assert (view.target, view.cost_micro_usd) == ("cut-2", 2 * PROMPT + 2)


async def test_no_second_target_is_asked_without_money_for_it(house: House) -> None:
    heard = await call(house, "poor", key=OTHER_KEY, max_tokens=MOST)
    assert (heard.status, heard.headers["x-served-by"]) == (200, "poor-1")
    assert house.asked("poor") == ["1"]
    held = house.view("poor").held
    assert (held["input_tokens"], held["output_tokens"]) == (PROMPT, MOST)


async def test_what_passes_through_is_asked_for_once(house: House) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{house.proxy.base_url}/rerank",
            json={"model": "raw", "query": "q", "documents": []},
            headers=headers(x_run_id="raw"),
        ) as reply,
    ):
        assert (reply.status, await reply.read()) == (200, b"{}")
    assert house.asked("raw") == ["1"]


async def test_p95_is_known_after_twenty_answers(house: House) -> None:
    """Until then nobody is asked twice, however slow the answer."""
    for n in range(20):
        await call(house, "learns", f"learns-{n}", said="be slow" if n == 3 else "hi")
    assert house.asked("learns") == ["1"] * 20
    calling = asyncio.create_task(call(house, "learns", "learned", said="be silent"))
    await until(lambda: house.asked("learns")[20:] == ["1", "2"], "a second one is asked")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_run_stays_with_the_one_that_answered(house: House) -> None:
    assert (await call(house, "warm")).headers["x-served-by"] == "warm-2"
    assert (await call(house, "warm")).headers["x-served-by"] == "warm-2"
    assert house.asked("warm") == ["1", "2", "2"]
