"""Several API keys of one target: used in turn, and one that is refused or limited rests alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from sqlalchemy import MetaData, select

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import ProxyProcess, ask, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = [f"sk-account-{n}-f3b1c7d05a2e9468" for n in (1, 2, 3)]
FIRST, SECOND, THIRD = (f"{{header: {{authorization: Bearer {key}}}}}" for key in KEYS)
REVOKED = f'status: 401, error: {{code: invalid_api_key, message: "Incorrect API key provided: {KEYS[0]}"}}'
SCRIPT = f"""
models:
  revoked:
    turns:
      - {{when: {FIRST}, {REVOKED}}}
      - {{text: Hello.}}
  forbidden:
    turns:
      - {{when: {FIRST}, status: 403}}
      - {{text: Hello.}}
  limited:
    turns:
      - {{when: {FIRST}, status: 429, retry_after: 40}}
      - {{text: Hello.}}
  no-credit:
    turns:
      - {{when: {FIRST}, status: 429, error: {{code: insufficient_quota}}}}
      - {{text: Hello.}}
  two-revoked:
    turns:
      - {{when: {FIRST}, {REVOKED}}}
      - {{when: {SECOND}, status: 429, retry_after: 40}}
      - {{text: Hello.}}
  all-revoked: {{turns: [{{{REVOKED}}}]}}
  all-limited:
    turns:
      - {{when: {FIRST}, status: 429, retry_after: 50}}
      - {{when: {SECOND}, status: 429, retry_after: 30}}
      - {{when: {THIRD}, status: 429, retry_after: 40}}
  well-again:
    turns:
      - {{when: {FIRST}, status: 429, headers: {{retry-after-ms: "100"}}, fail_times: 1}}
      - {{text: Hello.}}
  broken: {{turns: [{{status: 500}}]}}
default:
  turns: [{{text: Hello.}}]
"""


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    folder: Path

    def keys_sent(self, model: str) -> list[int]:
        """Which key (from 1) came with each request for `model`, in order."""
        sent = [seen.headers["authorization"] for seen in self.upstream.seen if seen.model == model]
        return [KEYS.index(bearer.removeprefix("Bearer ")) + 1 for bearer in sent]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    script = parse_script(SCRIPT)
    async with running(script) as upstream:
        models: dict[str, dict[str, Any]] = {}
        for name in [*script.models, "in-turn"]:
            for stream in (False, True):
                model = _model(name, stream)
                keyed = {"id": model, "provider": "openai", "model": name, "base_url": upstream.base_url}
                models[model] = {"targets": [keyed | {"api_keys": KEYS}], "retries": 0}
                if name == "well-again":
                    models[model]["breaker"] = {"cool_down_s": 0.05}
        folder = tmp_path_factory.mktemp("keys")
        settings = config(upstream.base_url, models=models)
        async with ProxyProcess(folder, settings) as proxy:
            yield House(proxy, upstream, folder)


def _model(name: str, stream: bool) -> str:
    return f"{name}-{'stream' if stream else 'whole'}"


@dataclass
class Heard:
    view: CallView
    error: openai.APIStatusError | None = None

    @property
    def attempts(self) -> list[tuple[int, str]]:
        """With which key (from 1), and how it failed."""
        return [(attempt.api_key, attempt.failure) for attempt in self.view.attempts]


async def _call(house: House, name: str, stream: bool) -> Heard:
    async with house.proxy.sdk() as sdk:
        try:
            raw = await sdk.chat.completions.with_raw_response.create(
                **ask(model=_model(name, stream), stream=stream)
            )
        except openai.APIStatusError as error:
            return Heard(house.proxy.view(error.response.headers["x-call-id"]), error)
        await raw.http_response.aread()
    await house.proxy.settled()
    return Heard(house.proxy.view(raw.headers["x-call-id"]))


@pytest.mark.parametrize("stream", [False, True])
async def test_keys_are_used_in_turn(house: House, stream: bool) -> None:
    house.upstream.reset()
    heard = [await _call(house, "in-turn", stream) for _ in range(7)]
    assert [one.attempts for one in heard] == [[(n, "")] for n in (1, 2, 3, 1, 2, 3, 1)]
    assert house.keys_sent("in-turn") == [1, 2, 3, 1, 2, 3, 1]


REFUSED = [
    ("revoked", "auth"),
    ("forbidden", "auth"),
    ("limited", "rate_limited"),
    ("no-credit", "quota_exhausted"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "failure"), REFUSED)
async def test_a_refused_key_rests_alone(house: House, name: str, failure: str, stream: bool) -> None:
    """Another one serves in the same call, and the resting one isn't sent again."""
    house.upstream.reset()
    heard = [await _call(house, name, stream) for _ in range(5)]
    first, *others = [one.attempts for one in heard]
    assert first == [(1, failure), (2, "")]
    assert others == [[(3, "")], [(2, "")], [(3, "")], [(2, "")]]
    assert house.keys_sent(name) == [1, 2, 3, 2, 3, 2]
    assert [one.view.status for one in heard] == [Status.OK] * 5


@pytest.mark.parametrize("stream", [False, True])
async def test_one_key_after_another_is_tried(house: House, stream: bool) -> None:
    house.upstream.reset()
    heard = [await _call(house, "two-revoked", stream) for _ in range(2)]
    assert [one.attempts for one in heard] == [[(1, "auth"), (2, "rate_limited"), (3, "")], [(3, "")]]


@pytest.mark.parametrize("stream", [False, True])
async def test_when_every_key_is_revoked(house: House, stream: bool) -> None:
    """Each is sent once; then the target rests, and isn't asked again."""
    house.upstream.reset()
    tried, told = await _call(house, "all-revoked", stream), await _call(house, "all-revoked", stream)
    assert tried.attempts == [(1, "auth"), (2, "auth"), (3, "auth")]
    assert tried.error is not None
    assert (tried.error.status_code, tried.error.code) == (502, "upstream_failed")
    assert told.attempts == []
    assert told.error is not None
    assert (told.error.status_code, told.error.code) == (503, "upstream_unavailable")
    assert house.keys_sent("all-revoked") == [1, 2, 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_when_every_key_is_limited(house: House, stream: bool) -> None:
    """The caller is told of the key that is free first."""
    house.upstream.reset()
    tried, told = await _call(house, "all-limited", stream), await _call(house, "all-limited", stream)
    assert tried.attempts == [(n, "rate_limited") for n in (1, 2, 3)]
    assert told.attempts == []
    for one in (tried, told):
        assert one.error is not None
        assert (one.error.status_code, one.error.code) == (503, "upstream_unavailable")
        assert 20 <= int(one.error.response.headers["retry-after"]) <= 30


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_has_rested_is_used_again(house: House, stream: bool) -> None:
    house.upstream.reset()
    assert (await _call(house, "well-again", stream)).attempts == [(1, "rate_limited"), (2, "")]
    for _ in range(200):
        if (await _call(house, "well-again", stream)).attempts == [(1, "")]:
            break
    else:
        raise AssertionError("the first key was never used again")
    house.upstream.seen.clear()
    for _ in range(3):
        await _call(house, "well-again", stream)
    assert house.keys_sent("well-again") == [2, 3, 1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_of_the_target_is_not_its_keys(house: House, stream: bool) -> None:
    """A 500 is the same with every key: they aren't all sent, and five of them open the target's breaker."""
    house.upstream.reset()
    heard = [await _call(house, "broken", stream) for _ in range(6)]
    assert [one.attempts for one in heard] == [[(n, "server_error")] for n in (1, 2, 3, 1, 2)] + [[]]


async def test_no_key_is_ever_shown(house: House) -> None:
    """In no error, no log, no record and no table, though this vendor tells one in its error."""
    whole, streamed = (
        await _call(house, "all-revoked", stream=False),
        await _call(house, "revoked", stream=True),
    )
    assert whole.error is not None
    told = [whole.error.message, whole.error.response.text, str(dict(whole.error.response.headers))]
    views = house.proxy.views()
    assert {attempt.failure for view in views for attempt in view.attempts} >= {"auth", "rate_limited"}
    assert streamed.view.id in [view.id for view in views]
    places = {
        "error": "".join(told),
        "log": house.proxy.log(),
        "records": repr(views),
        "tables": _tables(house),
    }
    assert {place for place, text in places.items() for key in KEYS if key[3:] in text} == set()


def _tables(house: House) -> str:
    """Every row of the store."""
    found = MetaData()
    found.reflect(house.proxy.engine)
    with house.proxy.engine.connect() as connection:
        return repr([connection.execute(select(table)).all() for table in found.sorted_tables])
