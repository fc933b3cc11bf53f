"""One proxy and one scripted vendor for a client's tests: models for every dialect that upstreams speak."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pydantic

from llm_proxy.chat.reply import ChoiceReply
from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, ProxyProcess, ask, config, headers, target

POOR_KEY = "sk-poor-0123456789abcdef"
WRONG_KEY = "sk-nobody-0123456789abcdef"
DIALECTS = {"chat": "openai_chat", "responses": "openai_responses", "messages": "anthropic_messages"}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
DOCUMENTED = {"gpt-4o-mini": "responses", "claude-haiku-4-5": "messages"}
"""Models that the guide's examples name, and what their servers speak."""
ORDER = "Where is my order?"
FINAL = "Your order is on its way."
THOUGHTS = ("I should look both things up first.", "The tank is the other one's.", "Now I know.")
ASKED = (("crm_read", {"id": 7}), ("kb_search", {"query": "tank"}), ("crm_read", {"id": 8}))
SCRIPT = """
models:
  broken: {turns: [{status: 500, error: {message: The vendor fell over.}}]}
  refusing:
    turns: [{status: 400, error: {message: The vendor refuses this., type: invalid_request_error}}]
  cut: {turns: [{text: This sentence never comes to the end that it was meant to have., truncate: true}]}
default:
  turns:
    - when: {turn: 0, last_user_contains: order}
      reasoning: I should look both things up first.
      text: One moment.
      tool_calls:
        - {name: crm_read, arguments: {id: 7}}
        - {name: kb_search, arguments: {query: tank}}
    - when: {turn: 1, last_user_contains: order, tool_answered: kb_search}
      reasoning: The tank is the other one's.
      tool_calls: [{name: crm_read, arguments: {id: 8}}]
    - when: {turn: 2, last_user_contains: order, last_tool_contains: "8"}
      reasoning: Now I know.
      text: Your order is on its way.
    - {when: {last_user_contains: city}, text: '{"name": "Oslo", "people": 717710}'}
    - {when: {turn: 1, last_user_contains: again}, text: Hello again.}
    - {text: "Hello there, friend.", usage: {input: 20, output: 6}}
"""


class Lookup(pydantic.BaseModel):
    """What `crm_read` takes."""

    model_config = pydantic.ConfigDict(extra="forbid")
    id: int


class Query(pydantic.BaseModel):
    """What `kb_search` takes."""

    model_config = pydantic.ConfigDict(extra="forbid")
    query: str


class City(pydantic.BaseModel):
    """A structured reply."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    people: int


SCHEMAS: dict[str, dict[str, Any]] = {
    "crm_read": Lookup.model_json_schema(),
    "kb_search": Query.model_json_schema(),
}


def answer(name: str, arguments: dict[str, Any]) -> str:
    """What a tool says: its own arguments, so that the vendor sees that they came through."""
    assert (name, arguments) in ASKED
    return f"{name} says {next(iter(arguments.values()))}"


@dataclass(frozen=True)
class House:
    """Models are `m-…`, `broken-…`, `refusing-…` and `cut-…`, for `chat`, `responses` and `messages` each."""

    proxy: ProxyProcess
    upstream: Scripted

    @property
    def base_url(self) -> str:
        return self.proxy.base_url

    @property
    def origin(self) -> str:
        return self.proxy.origin

    def calls(self, run: str) -> list[CallView]:
        return self.proxy.views(run=run)

    def three_turns(self, run: str, caller: str, upstream: str, *, stream: bool) -> None:
        """Asserts that the run is the whole talk about the order, as each side's dialect has it."""
        calls = self.calls(run)
        assert [call.status for call in calls] == [Status.OK] * 3
        assert {(call.dialect, call.stream) for call in calls} == {(DIALECTS[caller], stream)}
        spoke = {call.upstream_dialect or call.dialect for call in calls}
        assert spoke == {DIALECTS[upstream]}
        assert [seen.path for seen in self.upstream.seen][-3:] == [PATHS[upstream]] * 3
        proposed = [(call.name, call.arguments) for view in calls for call in said(view).calls]
        assert proposed == [
            ("crm_read", '{"id":7}'),
            ("kb_search", '{"query":"tank"}'),
            ("crm_read", '{"id":8}'),
        ]
        assert said(calls[-1]).text == FINAL

    def failed(self, run: str, status: int) -> None:
        """Asserts that the run is one call that failed with this status."""
        (call,) = self.calls(run)
        assert call.status in (Status.FAILED, Status.REFUSED)
        assert call.problem is not None
        assert call.problem.status == status


def said(call: CallView) -> ChoiceReply:
    """The one choice of a recorded reply."""
    assert call.reply is not None
    (choice,) = call.reply.choices
    return choice


def thoughts(call: CallView) -> str:
    """The readable reasoning of a recorded reply."""
    return "".join(part.text for part in said(call).reasoning if part.kind not in ("encrypted", "redacted"))


def _models(upstream: Scripted) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for script in ("m", "broken", "refusing", "cut"):
        for short, dialect in DIALECTS.items():
            name = f"{script}-{short}"
            to = target(f"to-{name}", upstream.base_url, script)
            if short == "messages":
                to |= {"provider": "anthropic", "base_url": upstream.anthropic_url}
            else:
                more = ["openai_embeddings", "openai_completions"] if short == "chat" else []
                to |= {"dialects": [dialect, *more]}
            models[name] = {"targets": [to], "retries": 0}
    for name, short in DOCUMENTED.items():
        (to,) = models[f"m-{short}"]["targets"]
        models[name] = {"targets": [{**to, "id": f"to-{name}"}], "retries": 0}
    return models


@contextlib.asynccontextmanager
async def open_house(folder: Path) -> AsyncGenerator[House]:
    """The agent `poor` has spent its day's only request."""
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models=_models(upstream),
            prices=dict.fromkeys(("m", "broken", "refusing", "cut"), price),
            agents={
                "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
                "poor": {"keys": [POOR_KEY], "models": ["*"]},
            },
            budgets=[{"id": "pence", "agent": "poor", "window": "day", "requests": 1}],
        )
        async with ProxyProcess(folder, settings) as proxy:
            async with aiohttp.ClientSession() as http:
                spent = ask() | {"model": "m-chat"}
                async with http.post(proxy.url, json=spent, headers=headers(POOR_KEY)) as reply:
                    assert reply.status == 200
            yield House(proxy, upstream)
