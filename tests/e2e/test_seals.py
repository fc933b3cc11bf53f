"""Sealed reasoning where a run goes from one provider to another and back: each gets its own seals alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import anthropic
import pytest
import pytest_asyncio

from llm_proxy.outgoing import FOREIGN_SEAL
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.test_reasoning import ASK, CALLERS, SCRIPT, THOUGHTS, House, Talk, whole_or_streamed
from tests.proxy import KEY, ProxyProcess, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAKY = (
    SCRIPT
    + """
models:
  flaky:
    turns:
      - when: {turn: 0}
        reasoning: First I look the order up.
        redacted: THIS WAS HIDDEN
        reasoning_field: reasoning_details
        tool_calls: [{name: order, arguments: {id: 7}}]
      - {status: 500}
"""
)
DIALECTS = ("chat", "responses", "messages")


@dataclass
class Two(House):
    """`upstream` is A; B is another host."""

    other: Scripted


def targets(name: str, a: Scripted, dialect: str, model: str = "m") -> dict[str, Any]:
    if dialect == "messages":
        return target(name, a.origin, model) | {"provider": "anthropic"}
    return target(name, a.base_url, model) | {"dialects": [f"openai_{dialect}"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    async with running(parse_script(FLAKY)) as a, running(parse_script(SCRIPT)) as b:
        models: dict[str, list[dict[str, Any]]] = {}
        for dialect in DIALECTS:
            models[f"a-{dialect}"] = [targets(f"a-{dialect}", a, dialect)]
            models[f"b-{dialect}"] = [targets(f"b-{dialect}", b, dialect)]
            for other in DIALECTS:
                first = targets(f"first-{dialect}-{other}", a, dialect, "flaky")
                models[f"{dialect}-{other}"] = [first, targets(f"then-{dialect}-{other}", b, other)]
        settings = config(
            a.base_url,
            models={name: {"targets": held, "retries": 0} for name, held in models.items()},
            prices={},
            unpriced="free",
        )
        async with (
            ProxyProcess(tmp_path_factory.mktemp("seals"), settings) as proxy,
            proxy.sdk() as chatty,
            anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=KEY, max_retries=0) as claude,
            aiohttp.ClientSession() as http,
        ):
            yield Two(proxy, a, chatty, claude, http, b)


def seals_in(value: Any) -> set[str]:
    """Every seal of a body or of parts of one."""
    if isinstance(value, list):
        return set().union(*map(seals_in, value))
    if not isinstance(value, dict):
        return set()
    own = {str(value[key]) for key in ("signature", "data", "encrypted_content") if value.get(key)}
    return own.union(*map(seals_in, value.values()))


def newest(upstream: Scripted) -> dict[str, Any]:
    return json.loads(upstream.seen[-1].body)


@whole_or_streamed
@pytest.mark.parametrize("caller", CALLERS)
async def test_a_run_that_changes_hosts_and_comes_back(two: Two, caller: str, stream: bool) -> None:
    run = f"back-{caller}-{stream}"
    talk = Talk([{"role": "user", "content": "Where is my order?"}])
    ask = ASK[caller]
    assert await ask(two, f"a-{caller}", talk, run, stream=stream) == 1
    assert await ask(two, f"b-{caller}", talk, run, stream=stream) == 2
    of_a, of_b = map(seals_in, talk.sealed)
    assert of_a
    if caller == "messages":  # B was asked not to think, since it may not where the turn starts without
        assert newest(two.other)["thinking"] == {"type": "disabled"}
    else:
        assert of_b
    assert not seals_in(newest(two.other)) & of_a
    assert await ask(two, f"a-{caller}", talk, run, stream=stream) == 0
    assert talk.text == "Your money is on its way."
    assert seals_in(newest(two.upstream)) == of_a, "A's go back, and B's do not"
    dropped = [view.dropped for view in two.proxy.views(run=run)]
    assert dropped[0] == ()
    assert FOREIGN_SEAL in dropped[1]
    assert ("thinking" in dropped[1]) is (caller == "messages")
    assert (FOREIGN_SEAL in dropped[2]) is bool(of_b)


@whole_or_streamed
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("then", DIALECTS)
@pytest.mark.parametrize("first", DIALECTS)
async def test_a_fallback_in_the_middle_of_a_run(
    two: Two, caller: str, first: str, then: str, stream: bool
) -> None:
    run = f"falls-{caller}-{first}-{then}-{stream}"
    talk = Talk([{"role": "user", "content": "Where is my order?"}])
    ask = ASK[caller]
    assert await ask(two, f"{first}-{then}", talk, run, stream=stream) == 1
    assert talk.thoughts == [THOUGHTS[0]]
    before = two.proxy.views(run=run)[0].reply
    assert before is not None
    given = {
        seal
        for part in before.choices[0].reasoning
        if (seal := part.signature or (part.text if part.kind in ("encrypted", "redacted") else ""))
    }
    assert given
    assert await ask(two, f"{first}-{then}", talk, run, stream=stream) == 2
    view = two.proxy.views(run=run)[1]
    assert view.target == f"then-{first}-{then}"
    assert not given & seals_in(newest(two.other))
    assert b"llmp1." not in two.other.seen[-1].body, "nor in an envelope"
    assert FOREIGN_SEAL in view.dropped


async def test_the_caller_is_told(two: Two) -> None:
    """`x-dropped-fields` names it, and a message of nothing but sealed thinking leaves a valid body."""
    talk = Talk([{"role": "user", "content": "Where is my order?"}])
    assert await ASK["messages"](two, "a-messages", talk, "told", stream=False) == 1
    thinking = [block for block in talk.history[1]["content"] if "thinking" in block["type"]]
    assert len(thinking) == 2
    asked: dict[str, Any] = {
        "model": "b-messages",
        "max_tokens": 900,
        "messages": [
            {"role": "user", "content": "Where is my order?"},
            {"role": "assistant", "content": thinking},
            {"role": "user", "content": "Well?"},
        ],
    }
    reply = await two.anthropic.with_options(
        default_headers={"x-run-id": "told"}
    ).messages.with_raw_response.create(**asked)
    assert reply.headers["x-dropped-fields"] == FOREIGN_SEAL
    sent = newest(two.other)
    assert sent["messages"] == [asked["messages"][0], asked["messages"][2]]
