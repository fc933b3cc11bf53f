"""Every format of reasoning through a real proxy: typed in the record, once each, and readable elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from llm_proxy.archive.content import fold
from llm_proxy.cli.main import app
from llm_proxy.records.view import Status
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.seal import unwrap
from tests.e2e.reasoning_replies import CASES, CHAT, MESSAGES, RESPONSES, Case
from tests.proxy import KEY, ProxyProcess, config, target, until
from tests.raw_upstream import Answer, events, model_of, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = (CHAT, RESPONSES, MESSAGES)
BY_NAME = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("name", list(BY_NAME))
whole_or_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
_PIECE = 13
"""Bytes of a chunk: less than any frame, and no divisor of one."""


def answer(body: bytes) -> Answer:
    case = BY_NAME[model_of(body)]
    if not json.loads(body).get("stream"):
        return whole(case.whole)
    return events(*(case.stream[at : at + _PIECE] for at in range(0, len(case.stream), _PIECE)))


@dataclass
class House:
    proxy: ProxyProcess
    http: aiohttp.ClientSession
    config: Path

    async def call(self, dialect: str, case: Case, *, stream: bool) -> tuple[str, bytes]:
        """The call's id, and what its caller got."""
        said = [{"role": "user", "content": "two plus two?"}]
        asked: dict[str, Any] = {"model": case.name, "stream": stream}
        match dialect:
            case "openai_responses":
                asked |= {"input": said, "include": ["reasoning.encrypted_content"], "store": False}
            case "anthropic_messages":
                thinking = {"type": "enabled", "budget_tokens": 2_000}
                asked |= {"messages": said, "max_tokens": 9_000, "thinking": thinking}
            case _:
                asked |= {"messages": said, "stream_options": {"include_usage": True}}
                if not stream:
                    del asked["stream_options"]
        url = self.proxy.origin + DIALECTS[dialect].path
        headers = {"authorization": f"Bearer {KEY}"}
        async with self.http.post(url, json=asked, headers=headers) as reply:
            body = await reply.read()
            assert reply.status == 200, body
            return reply.headers["x-call-id"], body

    async def shown(self, call_id: str) -> dict[str, Any]:
        """`calls show --json`."""
        command = ["calls", "show", call_id, "--json", "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with raw_upstream(answer) as upstream:
        folder = tmp_path_factory.mktemp("formats")
        targets = {
            case.name: target(case.name, upstream.base_url, case.name)
            | ({"provider": "anthropic"} if case.dialect == MESSAGES else {"dialects": [case.dialect]})
            for case in CASES
        }
        settings = config(
            upstream.base_url,
            models={name: {"targets": [to], "retries": 0} for name, to in targets.items()},
            prices={},
            unpriced="free",
        )
        async with ProxyProcess(folder, settings) as proxy, aiohttp.ClientSession() as http:
            yield House(proxy, http, folder / "proxy.yaml")


def parts_of(choice: dict[str, Any]) -> list[tuple[str, ...]]:
    """Kind and text of each part, with its signature where it has one."""
    return [
        (part["kind"], part.get("text", "").strip(), *([part["signature"]] if part.get("signature") else []))
        for part in choice.get("reasoning", [])
    ]


@whole_or_streamed
@every_case
async def test_the_record_has_typed_parts_once_each(house: House, name: str, stream: bool) -> None:
    case = BY_NAME[name]
    call_id, body = await house.call(case.dialect, case, stream=stream)
    assert body == (case.stream if stream else case.whole), "the caller gets the vendor's bytes"
    shown = await house.shown(call_id)
    (choice,) = shown["reply"]["choices"]
    assert sorted(parts_of(choice)) == sorted(case.parts)
    assert choice["text"] == case.text
    assert shown["reasoning_withheld"] is case.withheld
    assert [call["signature"] for call in choice["calls"]] == case.signatures
    if b"64" in case.whole:
        assert shown["usage"]["reasoning_tokens"] == 64


@whole_or_streamed
@every_case
async def test_callers_of_other_dialects_read_the_same_words(house: House, name: str, stream: bool) -> None:
    case = BY_NAME[name]
    for caller in CALLERS:
        if caller == case.dialect:
            continue
        call_id, body = await house.call(caller, case, stream=stream)
        got = fold(DIALECTS[caller], shown_once(body, caller), stream=stream).choices[0]
        read = "".join(part.text for part in got.reasoning if part.kind not in ("encrypted", "redacted"))
        if name == "prefilled":  # nothing but its end says that it was reasoning
            assert "Two plus two." in got.text + read
            assert "It is four." in got.text
        else:
            assert read.replace("\n", "") == case.words
            assert got.text.strip() == case.text
        await until(lambda id_=call_id: house.proxy.view(id_).status == Status.OK, "it is recorded")
        view = house.proxy.view(call_id)
        assert view.upstream_dialect == case.dialect
        assert view.emitted == (case.stream if stream else case.whole)
        assert view.reply is not None
        found = [
            (part.kind.value, part.text.strip(), *([part.signature] if part.signature else []))
            for part in view.reply.choices[0].reasoning
        ]
        assert sorted(found) == sorted(case.parts), "the record reads the vendor's reply"
        for seal in case.signatures:
            assert seal not in got.text
        for kind, text, *signature in case.parts:
            seal = signature[0] if signature else text if kind in ("encrypted", "redacted") else ""
            carried = fold_seals(body, caller, stream=stream)
            assert not seal or seal in carried, f"{caller} lost the seal {seal}"


def shown_once(body: bytes, caller: str) -> bytes:
    """A chat reply without `reasoning_content` where `reasoning_details` tell it too: clients read one."""
    if caller == CHAT and b'"reasoning_details"' in body:
        return body.replace(b'"reasoning_content"', b'"x"')
    return body


def fold_seals(body: bytes, caller: str, *, stream: bool) -> set[str]:
    """Every seal of a reply, those taken out of their envelopes that only travelled in this dialect."""
    parts = fold(DIALECTS[caller], body, stream=stream).choices[0].reasoning
    raw = {seal for part in parts for seal in (part.signature, part.text) if seal}
    opened = [part for seal in raw if (part := unwrap(seal))]
    return raw | {seal for part in opened for seal in (part.signature, part.text)}
