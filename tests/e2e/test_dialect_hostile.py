"""Streams of Responses and Messages that contradict themselves: nothing unjudged reaches an agent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from tests.e2e.dialect_agents import AGENTS, Agent, speaking
from tests.proxy import ProxyProcess, config
from tests.raw_upstream import events, model_of, raw_upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "SECRET"
ARGUMENTS = '{"to": "SECRET"}'
POLICY: dict[str, Any] = {
    "policy": {"id": "hostile", "version": 1},
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
    },
}


def _event(type_: str, **more: Any) -> bytes:
    return f"event: {type_}\ndata: {json.dumps({'type': type_} | more)}\n\n".encode()


def _response(status: str = "completed", *output: Any, **more: Any) -> dict[str, Any]:
    used = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": used,
    } | more


def _call(name: str = "crm_read", arguments: str = '{"id": "7"}', id_: str = "1") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{id_}",
        "call_id": f"call_{id_}",
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def _text(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


CREATED = _event("response.created", response=_response("in_progress"))
ADDED = _event("response.output_item.added", output_index=0, item=_call(arguments=""))
DELTA = _event("response.function_call_arguments.delta", output_index=0, item_id="fc_1", delta='{"id": "7"}')
GOOD = _call()
COMPLETED = _event("response.completed", response=_response("completed", GOOD))


def _written(arguments: str, **more: Any) -> bytes:
    place = {"output_index": 0, "item_id": "fc_1", "arguments": arguments}
    return _event("response.function_call_arguments.done", **(place | more))


def _done(item: Any, index: int = 0) -> bytes:
    return _event("response.output_item.done", output_index=index, item=item)


BAD = _call("mail_send", ARGUMENTS)
RESPONSES: dict[str, list[bytes]] = {
    "arguments done otherwise": [CREATED, ADDED, DELTA, _written(ARGUMENTS), _done(GOOD), COMPLETED],
    "item done otherwise": [CREATED, ADDED, DELTA, _done(_call(arguments=ARGUMENTS)), COMPLETED],
    "item done under another name": [CREATED, ADDED, DELTA, _done(BAD), COMPLETED],
    "completed otherwise": [
        *(CREATED, ADDED, DELTA, _done(GOOD)),
        _event("response.completed", response=_response("completed", _call(arguments=ARGUMENTS))),
    ],
    "completed under another name": [
        *(CREATED, ADDED, DELTA, _done(GOOD)),
        _event("response.completed", response=_response("completed", BAD)),
    ],
    "a message becomes a call": [
        CREATED,
        _event("response.output_item.added", output_index=0, item=_text("")),
        _done(BAD),
        COMPLETED,
    ],
    "a call when it is created": [
        _event("response.created", response=_response("in_progress", BAD)),
        _event("response.completed", response=_response("completed", _text("Hi"))),
    ],
    "a call while it goes on": [
        CREATED,
        _event("response.in_progress", response=_response("in_progress", BAD)),
        _event("response.completed", response=_response("completed", _text("Hi"))),
    ],
    "an event named otherwise": [
        CREATED,
        b"event: response.output_text.delta\ndata: "
        + json.dumps({"type": "response.output_item.added", "output_index": 0, "item": BAD}).encode()
        + b"\n\n",
        COMPLETED,
    ],
    "a key twice": [
        CREATED,
        _event("response.output_item.added", output_index=0, item=GOOD).replace(
            b'"item": ', b'"item": %b, "item": ' % json.dumps(BAD).encode()
        ),
        COMPLETED,
    ],
    "two items in one place": [
        *(CREATED, ADDED, DELTA),
        _event("response.output_item.added", output_index=0, item=BAD),
        COMPLETED,
    ],
    "arguments of another's": [
        *(CREATED, ADDED, DELTA, _done(GOOD)),
        _event("response.function_call_arguments.delta", output_index=0, item_id="fc_1", delta=ARGUMENTS),
        COMPLETED,
    ],
}

START = _event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 1},
    },
)
END = [
    _event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 7}),
    _event("message_stop"),
]


def _block(index: int, name: str = "crm_read", input_: Any = None, **more: Any) -> bytes:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": input_ or {}} | more
    return _event("content_block_start", index=index, content_block=block)


def _json(index: int, piece: str) -> bytes:
    delta = {"type": "input_json_delta", "partial_json": piece}
    return _event("content_block_delta", index=index, delta=delta)


def _stop(index: int) -> bytes:
    return _event("content_block_stop", index=index)


WORDS = _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
MESSAGES: dict[str, list[bytes]] = {
    "one index twice": [
        *(START, _block(0), _json(0, '{"id": "7"}')),
        *(_block(0, "mail_send"), _json(0, ARGUMENTS), _stop(0), *END),
    ],
    "one index twice, one behind the other": [
        *(START, _block(0), _json(0, '{"id": "7"}'), _stop(0)),
        *(_block(0, "mail_send"), _json(0, ARGUMENTS), _stop(0), *END),
    ],
    "a text becomes a call": [START, WORDS, _block(0, "mail_send"), _json(0, ARGUMENTS), _stop(0), *END],
    "arguments for a text": [START, WORDS, _stop(0), _json(0, ARGUMENTS), *END],
    "arguments twice": [START, _block(0, input_={"id": "7"}), _json(0, ARGUMENTS), _stop(0), *END],
    "arguments behind the stop": [
        START,
        _block(0),
        _json(0, '{"id": "7"}'),
        _stop(0),
        _json(0, ARGUMENTS),
        *END,
    ],
    "a place left out": [START, _block(1, "mail_send"), _json(1, ARGUMENTS), _stop(1), *END],
    "a call behind the end": [
        *(START, END[0], _block(0, "mail_send"), _json(0, ARGUMENTS), _stop(0), END[1]),
    ],
    "content at the start": [
        START.replace(
            b'"content": []',
            b'"content": [%b]'
            % json.dumps({"type": "tool_use", "id": "t", "name": "m", "input": {"to": SECRET}}).encode(),
        ),
        *END,
    ],
    "a second message": [START, _block(0), _json(0, '{"id": "7"}'), _stop(0), START, *END[:1], _stop(9)],
    "an event named otherwise": [
        START,
        _block(0, "mail_send", {"to": SECRET}).replace(b"event: content_block_start", b"event: ping"),
        _stop(0),
        *END,
    ],
    "a name twice": [
        START,
        _block(0).replace(b'"name": "crm_read"', b'"name": "crm_read", "name": "mail_send"'),
        _json(0, ARGUMENTS),
        _stop(0),
        *END,
    ],
}
LATE: dict[str, list[bytes]] = {
    "in the final response alone": [
        CREATED,
        _event("response.completed", response=_response("completed", BAD)),
    ],
    "in the final response beside another": [
        *(CREATED, ADDED, DELTA, _done(GOOD)),
        _event(
            "response.completed",
            response=_response("completed", GOOD, _call("mail_send", ARGUMENTS, "2")),
        ),
    ],
    "when it is done": [
        CREATED,
        _done(BAD),
        _event("response.completed", response=_response("completed", BAD)),
    ],
    "twice in the final response": [
        *(CREATED, _event("response.output_item.added", output_index=0, item=BAD), _done(BAD)),
        _event("response.completed", response=_response("completed", BAD, BAD)),
    ],
    "whole as it is added": [
        *(CREATED, _event("response.output_item.added", output_index=0, item=BAD)),
        _event("response.completed", response=_response("completed", _text("Hi"))),
    ],
}
STREAMS = {
    **{f"responses: {name}": frames for name, frames in RESPONSES.items()},
    **{f"messages: {name}": frames for name, frames in MESSAGES.items()},
    **{f"late: {name}": frames for name, frames in LATE.items()},
}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Each stream has a model of its own for each agent, since a target that sends such things will rest."""
    async with raw_upstream(lambda body: events(*STREAMS[model_of(body)])) as upstream:
        origin = upstream.base_url.removesuffix("/v1")
        models = {
            f"{name} for {agent.dialect}": {
                "targets": [
                    speaking(
                        "anthropic_messages" if name.startswith("messages") else "openai_responses",
                        f"{number}-{agent.dialect}",
                        origin,
                        name,
                    )
                ],
                "retries": 0,
            }
            for number, name in enumerate(STREAMS)
            for agent in AGENTS
        }
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
        settings = config(upstream.base_url, models=models, prices=dict.fromkeys(STREAMS, price))
        async with ProxyProcess(tmp_path_factory.mktemp("hostile"), settings, policy=POLICY) as proxy:
            yield House(proxy)


HOSTILE = [name for name in STREAMS if not name.startswith("late")]


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
@pytest.mark.parametrize("name", HOSTILE)
async def test_what_contradicts_itself_fails(house: House, name: str, kind: type[Agent]) -> None:
    async with kind(house.proxy, f"{name} for {kind.dialect}", run=name, think=False) as agent:
        with pytest.raises((openai.APIError, anthropic.APIStatusError)):
            await agent.say("do it", stream=True)
        got, view = agent.tape.bytes, house.proxy.view(agent.tape.call_id)
    assert SECRET.encode() not in got
    assert b'"7\\"' not in got, "a call came through that was never judged"
    assert view.status in (Status.FAILED, Status.CUT)
    assert [attempt.failure for attempt in view.attempts] == ["malformed"]


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("late")])
async def test_a_call_that_is_said_late_is_judged(house: House, name: str, kind: type[Agent]) -> None:
    async with kind(house.proxy, f"{name} for {kind.dialect}", run=name, think=False) as agent:
        heard = await agent.say("do it", stream=True)
        got, view = agent.tape.bytes, house.proxy.view(agent.tape.call_id)
    assert SECRET.encode() not in got
    assert heard.calls == ([("crm_read", {"id": "7"})] if "beside" in name else [])
    assert b"'mail_send' was denied" in got
    assert "'mail_send' was denied" in heard.text or "as it is added" in name
    assert heard.stop == agent.ends[bool(heard.calls)]
    assert {(d.tool, d.decision) for d in view.decisions} >= {("mail_send", "deny")}
    assert view.released == got
