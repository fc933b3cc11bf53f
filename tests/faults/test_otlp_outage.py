"""The OTLP backend is down for a whole run and comes back: every span arrives, once, with all in it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from llm_proxy.telemetry.ids import span_id_of
from tests.exported import NEVER_OPEN, POLICY, expected_spans, unsent
from tests.otlp_receiver import OtlpReceiver, attributes_of
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, target, until

THOUGHT = "The customer asks for a refund; I must read the order first."
SCRIPT = f"""
default:
  turns:
    - {{when: {{last_user_contains: fail}}, status: 500}}
    - {{when: {{last_user_contains: break}}, text: one two three four, cut_after: 3, delta_s: 0.01}}
    - when: {{last_user_contains: refund, turn: 0}}
      reasoning: {THOUGHT}
      tool_calls: [{{name: order_read, arguments: {{id: o-7}}}}, {{name: refund, arguments: {{amount: 5}}}}]
    - {{when: {{last_user_contains: refund, turn: 1}}, reasoning: Done., text: A person will see to it.}}
    - {{text: Hello}}
"""


@asynccontextmanager
async def _house(folder: Path, receiver: OtlpReceiver, workers: int = 1) -> AsyncGenerator[ProxyProcess]:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url)], "retries": 0, "breaker": NEVER_OPEN}},
            telemetry={"otlp_endpoint": receiver.endpoint},
            agents={
                "bot": {"team": "crew", "role": "support", "keys": [KEY], "models": ["m"]},
                "other": {"keys": [OTHER_KEY], "models": []},
            },
        )
        async with ProxyProcess(folder, settings, policy=POLICY, workers=workers) as proxy:
            yield proxy


async def _a_run(proxy: ProxyProcess, run: str, stream: bool) -> None:
    """Two turns with reasoning, an allowed and a denied tool call; then failures and a refusal."""
    async with proxy.sdk(default_headers={"x-run-id": run, "x-user-id": "ann"}) as sdk:
        messages: list[Any] = [{"role": "user", "content": "I want a refund"}]
        first = await _turn(sdk, messages, stream)
        (call,) = first["tool_calls"]
        assert call["function"]["name"] == "order_read"
        messages += [first, {"role": "tool", "tool_call_id": call["id"], "content": "paid"}]
        await _turn(sdk, messages, stream)
        for text in ("fail", "break"):
            with pytest.raises(openai.APIError):
                await _turn(sdk, [{"role": "user", "content": text}], stream)
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(**ask(model="nope"))


async def _turn(sdk: openai.AsyncOpenAI, messages: list[Any], stream: bool) -> dict[str, Any]:
    if not stream:
        reply = await sdk.chat.completions.create(model="m", messages=messages)
        return reply.choices[0].message.model_dump(exclude_none=True)
    content, calls = "", dict[int, dict[str, Any]]()
    async for chunk in await sdk.chat.completions.create(model="m", messages=messages, stream=True):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            for delta in choice.delta.tool_calls or ():
                empty = {"id": delta.id, "type": "function", "function": {"name": "", "arguments": ""}}
                function = calls.setdefault(delta.index, empty)["function"]
                assert delta.function is not None
                function["name"] += delta.function.name or ""
                function["arguments"] += delta.function.arguments or ""
    return {"role": "assistant", "content": content, "tool_calls": list(calls.values())}


async def _all_arrive(proxy: ProxyProcess, receiver: OtlpReceiver, timeout_s: float) -> None:
    """Waits until everything that ended was exported and the cursors have moved, then compares."""
    expected = expected_spans(proxy.engine)
    arrived = await asyncio.to_thread(receiver.wait_for_spans, len(expected), timeout_s)
    assert arrived, f"{len(receiver.spans)} of {len(expected)} spans arrived"
    await until(lambda: unsent(proxy.engine) == 0, "the cursors have moved")
    assert receiver.spans == expected
    assert receiver.duplicates == 0, "a span was sent twice"
    views = [view for view in proxy.views() if view.status is not Status.OPEN]
    assert {span_id_of(view.id) for view in views} <= set(receiver.spans)


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_backend_is_down_for_a_whole_run(tmp_path: Path, workers: int) -> None:
    receiver = OtlpReceiver().reserve_port()
    async with _house(tmp_path, receiver, workers) as proxy:
        await asyncio.gather(*(_a_run(proxy, f"run-{n}", stream=n % 2 == 0) for n in range(6)))
        async with proxy.sdk(OTHER_KEY) as other:
            with pytest.raises(openai.PermissionDeniedError):
                await other.chat.completions.create(**ask())
        assert receiver.requests == []
        with receiver:
            await _all_arrive(proxy, receiver, 30)
            names = Counter(span.name.split()[0] for span in receiver.spans.values())
            assert names == {"invoke_agent": 7, "chat": 31, "execute_tool": 12}
            for view in proxy.views():
                _check_span(receiver.spans[span_id_of(view.id)], view)
            _check_reasoning(receiver, proxy.views(run="run-0")[0])
            _check_reasoning(receiver, proxy.views(run="run-1")[0])
            services = {
                pair.value.string_value
                for resource in receiver.resources
                for pair in resource.attributes
                if pair.key == "service.name"
            }
            assert services == {"llm-proxy"}


def _check_span(span: Span, view: CallView) -> None:
    told = attributes_of(span)
    assert span.name == f"chat {view.model}".strip()
    assert told["llm_proxy.call.id"] == view.id
    assert told["llm_proxy.run.id"] == told["session.id"] == view.run_id
    assert told["llm_proxy.agent.id"] == told["gen_ai.agent.id"] == view.agent_id
    assert told["llm_proxy.status"] == view.status.value
    assert told["llm_proxy.cost_micro_usd"] == view.cost_micro_usd
    if view.run_id.startswith("run-"):
        assert told["user.id"] == "ann"
    if view.status is Status.OK:
        messages = json.loads(str(told["gen_ai.output.messages"]))
        assert [bool(message["finish_reason"]) for message in messages] == [True]
        assert told["gen_ai.usage.output_tokens"] == (view.usage.output if view.usage else None)
        assert json.loads(str(told["gen_ai.input.messages"]))[0]["role"] == "user"
    else:
        assert view.problem is not None
        assert told["error.type"] == view.problem.kind


def _check_reasoning(receiver: OtlpReceiver, view: CallView) -> None:
    """The first call of a run: what the model thought, what it proposed, and how that was judged."""
    told = attributes_of(receiver.spans[span_id_of(view.id)])
    (message,) = json.loads(str(told["gen_ai.output.messages"]))
    kinds = Counter(part["type"] for part in message["parts"])
    assert kinds == {"reasoning": 1, "tool_call": 2}
    assert message["parts"][0]["content"] == THOUGHT
    assert (told["llm_proxy.decision"], told["llm_proxy.rule"]) == ("deny", "prohibited")
    verdicts = json.loads(str(told["llm_proxy.decisions"]))
    assert [(v["tool"], v["decision"]) for v in verdicts] == [("order_read", "allow"), ("refund", "deny")]


async def test_the_proxy_is_killed_while_the_backend_is_down(tmp_path: Path) -> None:
    """What was not sent is sent by the next process, once the dead one's lease on exporting has run out."""
    receiver = OtlpReceiver().reserve_port()
    async with _house(tmp_path, receiver) as proxy:
        async with proxy.sdk() as sdk:
            await asyncio.gather(*(sdk.chat.completions.create(**ask(f"hi {n}")) for n in range(30)))
        proxy.kill9()
        with receiver:
            await proxy.restart()
            await _all_arrive(proxy, receiver, 40)
            assert len(receiver.spans) == 60, "each call is a run of its own"


async def test_the_proxy_is_stopped_while_the_backend_is_down(tmp_path: Path) -> None:
    receiver = OtlpReceiver().reserve_port()
    async with _house(tmp_path, receiver) as proxy:
        async with proxy.sdk() as sdk:
            await asyncio.gather(*(sdk.chat.completions.create(**ask(f"hi {n}")) for n in range(10)))
        assert await proxy.terminate() in (0, -15)
        with receiver:
            await proxy.start()
            await _all_arrive(proxy, receiver, 40)
