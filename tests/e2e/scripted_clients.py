"""A scripted server on a real port, and OpenAI's SDK as its client: fixtures that its tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running

SCRIPT = """
default:
  turns:
    - when: {model: tools}
      reasoning: I should look.
      tool_calls: [{name: crm_read, arguments: {id: 7}}, {name: kb_search, arguments: {query: tank}}]
    - {when: {model: two}, text: heads, choices: [{text: tails}]}
    - {when: {model: m400}, status: 400, error: {message: no such field, type: invalid_request_error}}
    - {when: {model: m401}, status: 401}
    - {when: {model: m404}, status: 404}
    - {when: {model: m409}, status: 409}
    - {when: {model: m422}, status: 422}
    - {when: {model: m429}, status: 429, retry_after: 7}
    - {when: {model: m500}, status: 500}
    - {when: {model: flaky}, status: 503, fail_times: 2, headers: {retry-after-ms: "1"}}
    - {when: {model: cut}, text: one two three four, cut_after: 3}
    - {when: {model: cut0}, text: one, cut_after: 0}
    - {when: {model: stall}, text: one two three four, stall_after: 3}
    - {when: {model: stall0}, text: one, stall_after: 0}
    - {when: {model: truncate}, text: one two three four, truncate: true}
    - {when: {model: malformed}, text: one two, malformed_after: 2}
    - {when: {model: in-band}, text: one two, error: {message: busy, type: overloaded_error}}
    - {when: {model: m529}, status: 529, retry_after: 3}
    - when: {model: agent, turn: 0}
      reasoning: I should look.
      tool_calls: [{name: crm_read, arguments: {id: 7}}]
    - {when: {model: agent, tool_answered: crm_read, last_tool_contains: gold}, text: A gold customer.}
    - {text: Hello there., usage: {input: 11, output: 3}}
"""
ASK: list[Any] = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with running(parse_script(SCRIPT)) as scripted:
        yield scripted


@pytest_asyncio.fixture
async def client(server: Scripted) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as sdk:
        yield sdk
