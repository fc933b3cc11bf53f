"""Prompts that are too long, or filtered, go to the models that are named for that, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.scripted_house import House
from tests.proxy import ProxyProcess, ask, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = "hi"
PROMPT = 8
"""Tokens that SHORT is counted as; a micro-dollar each."""
LONG = "word " * 120
MIDDLE = "word " * 60
COST = 20 + 2 * 6
"""Of each reply, by the usage it reports."""
USAGE = "usage: {input: 20, output: 6}"
TOO_LONG = "This model's maximum context length is 100 tokens."
FILTERED = "The response was filtered."
SCRIPT = f"""
models:
  tiny: {{turns: [{{text: from tiny, {USAGE}}}]}}
  small: {{turns: [{{text: from small, {USAGE}}}]}}
  large: {{turns: [{{text: from large, {USAGE}}}]}}
  spare: {{turns: [{{text: from spare, {USAGE}}}]}}
  mild: {{turns: [{{text: from mild, {USAGE}}}]}}
  full: {{turns: [{{status: 400, error: {{code: context_length_exceeded, message: "{TOO_LONG}"}}}}]}}
  prude: {{turns: [{{status: 400, error: {{code: content_filter, message: "{FILTERED}"}}}}]}}
"""
WINDOWS = {"tiny": 40, "small": 100}
"""Tokens of a prompt that a model takes; it isn't known of the others."""
MODELS: dict[str, dict[str, Any]] = {
    "large": {},
    "spare": {},
    "mild": {},
    "small": {"context_fallbacks": ["large"], "fallbacks": ["spare"]},
    "tiny": {"context_fallbacks": ["small-alone", "large"], "fallbacks": ["spare"]},
    "small-alone": {"sent": "small", "fallbacks": ["spare"]},
    "small-only": {"sent": "small"},
    "full": {"context_fallbacks": ["large"], "fallbacks": ["spare"], "content_fallbacks": ["mild"]},
    "full-then-full": {"sent": "full", "context_fallbacks": ["full-alone", "large"]},
    "full-alone": {"sent": "full", "fallbacks": ["spare"]},
    "prude": {"content_fallbacks": ["mild"], "fallbacks": ["spare"], "context_fallbacks": ["large"]},
    "prude-alone": {"sent": "prude", "fallbacks": ["spare"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    script = parse_script(SCRIPT)
    async with running(script) as upstream:
        models: dict[str, dict[str, Any]] = {}
        for name, told in MODELS.items():
            fallbacks = {key: value for key, value in told.items() if key != "sent"}
            sent = told.get("sent", name)
            models[name] = {"targets": [target(name, upstream.base_url, sent)], "retries": 0} | fallbacks
        prices: dict[str, dict[str, Any]] = {
            name: {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6} for name in script.models
        }
        for name, window in WINDOWS.items():
            prices[name]["max_input_tokens"] = window
        settings = config(upstream.base_url, models=models, prices=prices)
        async with ProxyProcess(tmp_path_factory.mktemp("fallbacks"), settings) as proxy:
            yield House(proxy, upstream)


@dataclass
class Heard:
    view: CallView
    text: str = ""
    error: openai.APIStatusError | None = None

    @property
    def attempts(self) -> list[tuple[str, str]]:
        return [(attempt.target, attempt.failure) for attempt in self.view.attempts]


async def _call(house: House, model: str, text: str, stream: bool) -> Heard:
    house.upstream.reset()
    async with house.proxy.sdk() as sdk:
        try:
            raw = await sdk.chat.completions.with_raw_response.create(**ask(text, model=model, stream=stream))
        except openai.APIStatusError as error:
            return Heard(house.proxy.view(error.response.headers["x-call-id"]), error=error)
        if stream:
            said = [choice.delta.content async for chunk in raw.parse() for choice in chunk.choices]
            text = "".join(filter(None, said))
        else:
            text = raw.parse().choices[0].message.content or ""
    await house.proxy.settled()
    return Heard(house.proxy.view(raw.headers["x-call-id"]), text)


COUNTED = [
    ("small", SHORT, "small", "small"),
    ("small", MIDDLE, "small", "small"),
    ("small", LONG, "large", "large"),
    ("tiny", SHORT, "tiny", "tiny"),
    ("tiny", MIDDLE, "small-alone", "small"),
    ("tiny", LONG, "large", "large"),
    ("small-only", LONG, "small-only", "small"),
]
"""Model, prompt, and which target answers, with which model's words."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "text", "served", "said"), COUNTED)
async def test_a_long_prompt_is_counted_before_it_is_sent(
    house: House, model: str, text: str, served: str, said: str, stream: bool
) -> None:
    """What it is too long for sees no request. Where nothing larger is known, the vendor decides."""
    heard = await _call(house, model, text, stream)
    assert (heard.text, heard.attempts) == (f"from {said}", [(served, "")])
    assert house.upstream.stats.requests == {said: 1}
    assert (heard.view.cost_micro_usd, heard.view.cost_label) == (COST, CostLabel.REPORTED)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_vendor_says_that_the_prompt_is_too_long(house: House, stream: bool) -> None:
    heard = await _call(house, "full", SHORT, stream)
    assert (heard.text, heard.attempts) == ("from large", [("full", "context_length"), ("large", "")])
    assert house.upstream.stats.requests == {"full": 1, "large": 1}
    assert (heard.view.cost_micro_usd, heard.view.cost_label) == (COST, CostLabel.REPORTED)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_larger_model_that_is_too_small_as_well(house: House, stream: bool) -> None:
    """The next one is asked in its place."""
    heard = await _call(house, "full-then-full", SHORT, stream)
    assert heard.text == "from large"
    assert heard.attempts == [
        ("full-then-full", "context_length"),
        ("full-alone", "context_length"),
        ("large", ""),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_filtered_request_goes_to_the_model_named_for_it(house: House, stream: bool) -> None:
    """The vendor may charge for the prompt that it filtered."""
    heard = await _call(house, "prude", SHORT, stream)
    assert (heard.text, heard.attempts) == ("from mild", [("prude", "content_filter"), ("mild", "")])
    assert house.upstream.stats.requests == {"prude": 1, "mild": 1}
    assert (heard.view.cost_micro_usd, heard.view.cost_label) == (PROMPT + COST, CostLabel.PARTIAL)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "sent", "failure", "words", "charged"),
    [
        ("full-alone", "full", "context_length", TOO_LONG, 0),
        ("prude-alone", "prude", "content_filter", FILTERED, PROMPT),
    ],
)
async def test_without_such_a_model_the_caller_hears_it(
    house: House, model: str, sent: str, failure: str, words: str, charged: int, stream: bool
) -> None:
    """Plain fallbacks would fail in the same way: they are not asked."""
    heard = await _call(house, model, SHORT, stream)
    assert heard.error is not None
    assert heard.error.status_code == 400
    assert words in heard.error.message
    assert heard.attempts == [(model, failure)]
    assert house.upstream.stats.requests == {sent: 1}
    assert heard.view.cost_micro_usd == charged


@pytest.mark.parametrize("model", ["full-alone", "prude-alone"])
async def test_what_the_request_is_at_fault_for_rests_no_target(house: House, model: str) -> None:
    """Five failures in a row would open its breaker."""
    heard = [await _call(house, model, SHORT, stream=False) for _ in range(7)]
    assert [len(one.attempts) for one in heard] == [1] * 7
