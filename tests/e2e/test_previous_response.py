"""`previous_response_id`: kept by the vendor where it speaks Responses, else by the proxy's own record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.responses import Response
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.test_reasoning import whole_or_streamed
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - when: {turn: 0}
      reasoning: I should look the order up.
      reasoning_field: reasoning_details
      tool_calls: [{name: order, arguments: {id: 7}}]
      usage: {input: 400, output: 100, reasoning: 60}
    - when: {turn: 1, tool_answered: order, last_tool_contains: shipped}
      server_tools: [{query: parcel times, urls: ["https://example.com/parcels"]}]
      text: It was shipped.
      usage: {input: 600, output: 50, reasoning: 20}
    - when: {turn: 2, last_user_contains: thanks}
      text: You are welcome.
"""
TOOLS: Any = [{"type": "function", "name": "order", "parameters": {"type": "object"}, "strict": False}]
MODELS = ("m-chat", "m-responses", "m-messages")


class House:
    def __init__(self, proxy: ProxyProcess, upstream: Scripted, folder: Path) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self.config = str(folder / "proxy.yaml")

    async def respond(self, sdk: openai.AsyncOpenAI, *, stream: bool, **asked: Any) -> Response:
        asked = {"tools": TOOLS, "extra_headers": {"x-run-id": asked.pop("run", "r")}} | asked
        if not stream:
            return await sdk.responses.create(**asked)
        async with sdk.responses.stream(**asked) as events:
            async for _ in events:
                pass
            return await events.get_final_response()

    async def cli(self, *args: str) -> str:
        command = [*args, "--config", self.config]
        environ = {"COLUMNS": "100", "NO_COLOR": "1"}
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert result.exit_code == 0, result.output
        return result.stdout

    def newest(self) -> dict[str, Any]:
        return json.loads(self.upstream.seen[-1].body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        folder = tmp_path_factory.mktemp("previous")
        targets: dict[str, dict[str, Any]] = {
            "m-chat": target("chat", upstream.base_url) | {"dialects": ["openai_chat"]},
            "m-responses": target("responses", upstream.base_url) | {"dialects": ["openai_responses"]},
            "m-messages": target("messages", upstream.origin, "claude-sonnet-4-5")
            | {"provider": "anthropic"},
        }
        settings = config(
            upstream.base_url,
            models={name: {"targets": [to], "retries": 0} for name, to in targets.items()},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "other": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            prices={},
            unpriced="free",
            budgets=[{"id": "small", "agent": "other", "window": "run", "tokens": 1_000}],
        )
        async with ProxyProcess(folder, settings) as proxy:
            yield House(proxy, upstream, folder)


async def three_turns(house: House, model: str, run: str, *, stream: bool) -> list[Response]:
    """A call, its result, and thanks, each naming only the response before it."""
    async with house.proxy.sdk() as sdk:
        asked: dict[str, Any] = {"model": model, "run": run, "stream": stream, "max_output_tokens": 9_000}
        asked |= {"reasoning": {"effort": "low", "summary": "auto"}}
        first = await house.respond(sdk, input="Where is my order?", **asked)
        (call,) = [item for item in first.output if item.type == "function_call"]
        answer: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "shipped"}
        second = await house.respond(sdk, input=[answer], previous_response_id=first.id, **asked)
        third = await house.respond(sdk, input="thanks", previous_response_id=second.id, **asked)
    return [first, second, third]


@whole_or_streamed
@pytest.mark.parametrize("model", MODELS)
async def test_three_turns_by_id_alone(house: House, model: str, stream: bool) -> None:
    run = f"three-{model}-{stream}"
    first, second, third = await three_turns(house, model, run, stream=stream)
    assert (second.output_text, third.output_text) == ("It was shipped.", "You are welcome.")
    assert len({first.id, second.id, third.id}) == 3
    sent = house.newest()
    if model == "m-responses":
        assert sent["previous_response_id"] == second.id, "the vendor keeps it"
        assert json.dumps(sent["input"]).count("thanks") == 1
        assert "Where is my order?" not in json.dumps(sent)
    else:
        assert "previous_response_id" not in sent
        said = json.dumps(sent["messages"])
        for words in ("Where is my order?", "shipped", "It was shipped.", "thanks"):
            assert words in said
        assert said.index("Where is my order?") < said.index("It was shipped.") < said.index("thanks")
    assert [view.status for view in house.proxy.views(run=run)] == ["ok"] * 3


@pytest.mark.parametrize("model", MODELS)
async def test_an_id_that_is_not_known_or_not_ones_own_is_refused(house: House, model: str) -> None:
    first, *_ = await three_turns(house, model, f"mine-{model}", stream=False)
    asked: dict[str, Any] = {"model": model, "input": "and now?", "stream": False}
    before = house.upstream.stats.total
    async with house.proxy.sdk() as sdk:
        for unknown in ("resp_" + "0" * 32, "resp_nonsense", "7"):
            with pytest.raises(openai.BadRequestError) as refused:
                await house.respond(sdk, previous_response_id=unknown, **asked)
            assert refused.value.param == "previous_response_id"
    async with house.proxy.sdk(OTHER_KEY) as sdk:
        with pytest.raises(openai.BadRequestError) as refused:
            await house.respond(sdk, previous_response_id=first.id, **asked)
        assert refused.value.param == "previous_response_id"
    assert house.upstream.stats.total == before, "nothing of it reached the vendor"


@pytest.mark.parametrize("model", MODELS)
async def test_the_budget_counts_what_was_said_before(house: House, model: str) -> None:
    """The second request is a few words, but with the 500 tokens behind it there is no room for it."""
    async with house.proxy.sdk(OTHER_KEY) as sdk:
        asked: dict[str, Any] = {"model": model, "run": f"small-{model}", "stream": False, "tools": []}
        first = await house.respond(sdk, input="Where is my order?", max_output_tokens=100, **asked)
        with pytest.raises(openai.RateLimitError) as refused:
            await house.respond(
                sdk, input="thanks", previous_response_id=first.id, max_output_tokens=16, **asked
            )
        fresh = await house.respond(sdk, input="Where is my order?", max_output_tokens=16, **asked)
        assert fresh.output, "the same room is enough for a call without a past"
    assert "'small' allows 1,000 tokens per run: 500 used" in refused.value.message


async def test_the_timeline_shows_thoughts_beside_the_calls_they_led_to(house: House) -> None:
    await three_turns(house, "m-responses", "shown", stream=True)
    text = await house.cli("runs", "show", "shown")
    thinks, proposes = text.index("I should look the order up."), text.index("order(id=7)")
    assert text.index("thinks") < thinks < proposes
    assert "I should look the order up. (summary)" in text
    assert "web_search, run by the provider" in text
    assert "the provider counts reasoning tokens and gives none of its words" in text
    assert "60 reasoning" in text
