"""Upstreams that fail in every way: who is asked next, what the caller hears, what is recorded, charged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.heard import Heard, hear
from tests.proxy import ProxyProcess, ask, config, free_port, headers, target
from tests.raw_upstream import Answer, RawUpstream, events, model_of, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "one two three four five six"
PROMPT = 8
"""Tokens that `ask()` is counted as; a micro-dollar each."""
GOOD = 20 + 2 * 6
"""What the good target's reply costs, by the usage it reports."""
SCRIPT = f"""
models:
  good: {{turns: [{{text: {TEXT}, usage: {{input: 20, output: 6}}}}]}}
  s500-twice:
    turns:
      - {{status: 500, fail_times: 2}}
      - {{text: {TEXT}, usage: {{input: 20, output: 6}}}}
  s429-once:
    turns:
      - {{status: 429, fail_times: 1, headers: {{retry-after-ms: "300"}}}}
      - {{text: {TEXT}, usage: {{input: 20, output: 6}}}}
  s429: {{turns: [{{status: 429, retry_after: 60}}]}}
  quota: {{turns: [{{status: 429, error: {{code: insufficient_quota, message: "no credit: sk-upstream"}}}}]}}
  overloaded: {{turns: [{{status: 529}}]}}
  s500: {{turns: [{{status: 500, error: {{message: "boom at sk-upstream"}}}}]}}
  s504: {{turns: [{{status: 504}}]}}
  s401: {{turns: [{{status: 401, error: {{message: "Incorrect API key provided: sk-upstream"}}}}]}}
  s403: {{turns: [{{status: 403}}]}}
  s404: {{turns: [{{status: 404}}]}}
  slow: {{turns: [{{text: {TEXT}, latency_s: 60}}]}}
  reset: {{turns: [{{text: {TEXT}, cut_after: 0}}]}}
  cut: {{turns: [{{text: {TEXT}, cut_after: 1}}]}}
  cut-late: {{turns: [{{text: {TEXT}, cut_after: 4, delta_s: 0.01}}]}}
  stall: {{turns: [{{text: {TEXT}, stall_after: 1}}]}}
  stall-late: {{turns: [{{text: {TEXT}, stall_after: 4}}]}}
  malformed: {{turns: [{{text: {TEXT}, malformed_after: 1}}]}}
  malformed-late: {{turns: [{{text: {TEXT}, malformed_after: 4, delta_s: 0.01}}]}}
  truncated: {{turns: [{{text: {TEXT}, truncate: true, delta_s: 0.01}}]}}
  in-band: {{turns: [{{error: {{message: busy, code: overloaded}}}}]}}
  in-band-late: {{turns: [{{text: {TEXT}, error: {{message: busy, code: overloaded}}, delta_s: 0.01}}]}}
"""
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26},
    }
).encode()
RAW: dict[str, Answer] = {
    "html": whole(b"<html>It works!</html>", content_type="text/html"),
    "empty": whole(b""),
    "redirect": whole(b"", status="302 Found\r\nlocation: http://127.0.0.1:1/"),
    "no choices": whole(b'{"object": "chat.completion"}'),
    "json for a stream": whole(REPLY),
    "stream for json": events(
        b'data: {"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ),
    "no http": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "nothing": [],
}


def _alias(name: str, stream: bool, *, alone: bool) -> str:
    """The model whose first target has the fault `name`."""
    return f"{name}/{'stream' if stream else 'whole'}{'' if alone else '+good'}"


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    scripted: Scripted
    raw: RawUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """For each fault, whole and streamed, a model with that target alone, and one with a good one behind it.

    Each has targets of its own, since one that failed may rest.
    """
    script, down = parse_script(SCRIPT), f"http://127.0.0.1:{free_port()}/v1"
    async with running(script) as scripted, raw_upstream(lambda body: RAW[model_of(body)]) as raw:
        at = (
            dict.fromkeys(script.models, scripted.base_url)
            | dict.fromkeys(RAW, raw.base_url)
            | {"refused": down}
        )
        del at["good"]
        timeouts = {"first_event_s": 0.4, "idle_s": 0.4}
        models: dict[str, Any] = {"good": {"targets": [target("good", scripted.base_url, "good")]}}
        for name, url in at.items():
            settings = {"timeouts": timeouts, "retries": 2 if name.endswith(("once", "twice")) else 0}
            for stream in (False, True):
                for alone in (False, True):
                    alias = _alias(name, stream, alone=alone)
                    bad = target(f"bad:{alias.replace(' ', '-')}", url, name)
                    models[alias] = {"targets": [bad], "fallbacks": [] if alone else ["good"], **settings}
        models["late"] = {
            "targets": [target("bad:late", scripted.base_url, "slow")],
            "fallbacks": ["good"],
            "timeouts": {"total_s": 0.4},
        }
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        settings = config(
            scripted.base_url,
            models=models,
            prices=dict.fromkeys([*at, "good"], price),
            budgets=[{"id": "day", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7}],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("faults"), settings) as proxy:
            yield House(proxy, scripted, raw)


async def _call(house: House, name: str, stream: bool, *, alone: bool = False) -> Heard:
    model = name if name == "late" else _alias(name, stream, alone=alone)
    async with house.proxy.sdk() as sdk:
        return await hear(sdk, model, stream=stream)


def _attempts(view: CallView) -> list[tuple[str, str]]:
    return [(attempt.target.split(":")[0], attempt.failure) for attempt in view.attempts]


@dataclass(frozen=True)
class Fault:
    """A target that fails before a word was released. `status`, `code`: the answer if there is no other."""

    model: str
    failure: str
    status: int = 502
    code: str = "upstream_failed"
    charged: int = 0
    """Micro-dollars that the failed attempt may have cost."""
    only: bool | None = None
    """Only where streamed (True) or whole (False)."""


FAULTS = [
    Fault("s500", "server_error"),
    Fault("s504", "gateway_timeout", charged=PROMPT),
    Fault("s429", "rate_limited", 503, "upstream_unavailable"),
    Fault("overloaded", "overloaded", 503, "upstream_unavailable"),
    Fault("quota", "quota_exhausted"),
    Fault("s401", "auth"),
    Fault("s403", "auth"),
    Fault("s404", "not_found"),
    Fault("refused", "connect_refused"),
    Fault("slow", "first_event_timeout", 504, "upstream_timeout", PROMPT),
    Fault("reset", "cut", charged=PROMPT),
    Fault("cut", "cut", charged=PROMPT, only=True),
    Fault("cut", "truncated", charged=PROMPT, only=False),
    Fault("stall", "idle_timeout", 504, "upstream_timeout", PROMPT),
    Fault("malformed", "malformed", charged=PROMPT),
    Fault("truncated", "truncated", charged=PROMPT, only=False),
    Fault("in-band", "overloaded", 503, "upstream_unavailable"),
    Fault("html", "malformed", charged=PROMPT),
    Fault("empty", "malformed", charged=PROMPT),
    Fault("redirect", "malformed", charged=PROMPT),
    Fault("no choices", "malformed", charged=PROMPT),
    Fault("json for a stream", "malformed", charged=GOOD, only=True),
    Fault("stream for json", "malformed", charged=PROMPT, only=False),
    Fault("no http", "malformed", charged=PROMPT),
    Fault("nothing", "cut", charged=PROMPT),
]
BOTH = [
    pytest.param(fault, stream, id=f"{fault.model}-{'stream' if stream else 'whole'}")
    for fault in FAULTS
    for stream in (False, True)
    if fault.only in (None, stream)
]


@pytest.mark.parametrize(("fault", "stream"), BOTH)
async def test_the_next_target_answers(house: House, fault: Fault, stream: bool) -> None:
    before = house.proxy.used("day", "micro_usd")
    heard = await _call(house, fault.model, stream)
    assert heard.error is None
    assert heard.text == TEXT
    view = house.proxy.view(heard.call_id)
    assert _attempts(view) == [("bad", fault.failure), ("good", "")]
    assert (view.status, view.target) == (Status.OK, "good")
    assert (heard.headers["x-served-by"], heard.headers["x-attempts"]) == ("good", "2")
    assert view.cost_micro_usd == GOOD + fault.charged
    assert house.proxy.used("day", "micro_usd") - before == view.cost_micro_usd
    assert view.cost_label is (CostLabel.PARTIAL if fault.charged not in (0, GOOD) else CostLabel.REPORTED)


@pytest.mark.parametrize(("fault", "stream"), BOTH)
async def test_the_only_target_fails(house: House, fault: Fault, stream: bool) -> None:
    before = house.proxy.used("day", "micro_usd")
    heard = await _call(house, fault.model, stream, alone=True)
    assert heard.told == (fault.status, fault.code)
    assert heard.error is not None
    assert f"'{_alias(fault.model, stream, alone=True)}'" in heard.error.message
    assert "sk-" not in heard.error.message
    if fault.status == 503:
        assert 1 <= int(heard.headers["retry-after"]) <= 60
    view = house.proxy.view(heard.call_id)
    assert _attempts(view) == [("bad", fault.failure)]
    assert view.status is Status.FAILED
    assert view.problem is not None
    assert (view.problem.kind, view.problem.status) == (fault.code, fault.status)
    assert view.cost_micro_usd == fault.charged
    assert house.proxy.used("day", "micro_usd") - before == fault.charged
    assert view.released == b""


@dataclass(frozen=True)
class Late:
    """A stream that fails after words were released: nobody else may answer, and the caller is told."""

    model: str
    failure: str
    code: str = "upstream_failed"
    said: str = "one two three"


LATE = [
    Late("cut-late", "cut"),
    Late("stall-late", "idle_timeout", "upstream_timeout"),
    Late("malformed-late", "malformed"),
    Late("truncated", "truncated"),
    Late("in-band-late", "overloaded", "upstream_unavailable", TEXT),
]


@pytest.mark.parametrize("late", LATE, ids=lambda late: late.model)
async def test_a_stream_that_breaks_off_is_never_a_success(house: House, late: Late) -> None:
    heard = await _call(house, late.model, stream=True)
    assert heard.told == (None, late.code)
    assert TEXT.startswith(heard.text)
    assert heard.text.startswith(late.said)
    view = house.proxy.view(heard.call_id)
    assert _attempts(view) == [("bad", late.failure)]
    assert view.status is Status.FAILED
    assert view.usage is not None
    assert view.cost_label is CostLabel.PARTIAL
    assert view.usage.input == PROMPT
    assert view.usage.output >= len(heard.text.split())
    assert view.cost_micro_usd == PROMPT + 2 * view.usage.output
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            house.proxy.url,
            json=ask(model=_alias(late.model, stream=True, alone=True), stream=True),
            headers=headers(),
        ) as reply,
    ):
        got = await reply.read()
    assert b"[DONE]" not in got
    assert json.loads(got.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["code"] == late.code


@pytest.mark.parametrize("stream", [False, True])
async def test_a_target_is_asked_again(house: House, stream: bool) -> None:
    house.scripted.reset()
    heard = await _call(house, "s500-twice", stream)
    view = house.proxy.view(heard.call_id)
    assert (heard.error, heard.text) == (None, TEXT)
    assert _attempts(view) == [("bad", "server_error"), ("bad", "server_error"), ("bad", "")]
    assert heard.headers["x-attempts"] == "3"
    assert (view.cost_micro_usd, view.cost_label) == (GOOD, CostLabel.REPORTED)


@pytest.mark.parametrize("stream", [False, True])
async def test_retry_after_is_waited_for(house: House, stream: bool) -> None:
    house.scripted.reset()
    heard = await _call(house, "s429-once", stream)
    first, second = house.proxy.view(heard.call_id).attempts
    assert (heard.text, first.failure, second.failure) == (TEXT, "rate_limited", "")
    assert first.target == second.target
    assert second.started_s - first.ended_s >= 0.3


@pytest.mark.parametrize("stream", [False, True])
async def test_the_calls_own_deadline(house: House, stream: bool) -> None:
    heard = await _call(house, "late", stream)
    assert heard.told == (504, "upstream_timeout")
    view = house.proxy.view(heard.call_id)
    assert _attempts(view) == [("bad", "total_timeout")]
    assert view.cost_micro_usd == PROMPT


CALLERS_OWN: dict[str, tuple[int, Answer]] = {}
for _status in (400, 413, 422):
    _body = b'{ "error": {"message":"no such field \\u00e9","type":"invalid_request_error","code":"%d"} }'
    CALLERS_OWN[f"refuses {_status}"] = (_status, whole(_body % _status, status=f"{_status} No"))
RAW.update({name: answer for name, (_, answer) in CALLERS_OWN.items()})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", CALLERS_OWN)
async def test_what_the_caller_did_wrong_passes_on_with_its_body(
    house: House, model: str, stream: bool
) -> None:
    status, (answer,) = CALLERS_OWN[model]
    assert isinstance(answer, bytes)
    house.scripted.reset()
    before = house.proxy.used("day", "micro_usd")
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            house.proxy.url,
            json=ask(model=_alias(model, stream, alone=False), stream=stream),
            headers=headers(),
        ) as reply,
    ):
        assert (reply.status, await reply.read()) == (status, answer.partition(b"\r\n\r\n")[2])
        assert reply.headers["x-should-retry"] == "false"
        view = house.proxy.view(reply.headers["x-call-id"])
    assert len(view.attempts) == 1
    assert view.status is Status.FAILED
    assert house.scripted.stats.total == 0, "the next target was asked"
    assert house.proxy.used("day", "micro_usd") == before


async def test_when_all_targets_rest_the_caller_is_told_for_how_long(house: House) -> None:
    """Five refused connections open the breaker (some were made by the tests above)."""
    heard = await _call(house, "refused", stream=False, alone=True)
    for _ in range(5):
        if heard.told == (503, "upstream_unavailable"):
            break
        assert heard.told == (502, "upstream_failed")
        heard = await _call(house, "refused", stream=False, alone=True)
    assert heard.told == (503, "upstream_unavailable")
    assert 1 <= int(heard.headers["retry-after"]) <= 15
    view = house.proxy.view(heard.call_id)
    assert (view.attempts, view.status, view.cost_micro_usd) == ((), Status.FAILED, 0)
    await house.proxy.settled()
    assert house.proxy.held_amounts() == 0
