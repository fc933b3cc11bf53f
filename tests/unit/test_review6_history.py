"""Review of issue 6: what is put back into a history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import CallPart, ResultPart, TextPart
from llm_proxy.records.runstate import RunKey
from llm_proxy.unseen import Unseen, UnseenTurns, encode, key_of, retold
from llm_proxy.wire.openai_chat import OPENAI_CHAT

RUN = RunKey("bot", "r")
NOTE = "[llm-proxy] The call to 'rm' was denied by rule 'prohibited'."
KEPT = Unseen(
    calls=((0, CallPart(id="c0", name="rm", arguments=json.dumps({"x": "A" * 100_000}))),),
    results=(ResultPart(call_id="c0", parts=(TextPart(text=NOTE),)),),
    note=NOTE,
)


def turn(id_: str) -> dict[str, Any]:
    call = {"id": id_, "type": "function", "function": {"name": "ok", "arguments": "{}"}}
    return {"role": "assistant", "content": NOTE, "tool_calls": [call]}


async def told(times: int) -> tuple[int, int]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, *[turn("c1")] * times]}
    request = OPENAI_CHAT.parse(json.dumps(body).encode())
    turns = UnseenTurns(lambda _: {key_of("", ("c1",)): encode(KEPT)})
    return len(request.body), len((await retold(OPENAI_CHAT, request, turns, RUN)).body)


@pytest.mark.asyncio
async def test_one_kept_reply_is_put_back_once() -> None:
    sent, went = await told(100)
    assert went < sent + 2 * len(encode(KEPT)), f"{sent} bytes became {went}"


@pytest.mark.asyncio
async def test_what_is_known_of_one_run_is_bounded() -> None:
    turns = UnseenTurns(lambda _: {})
    for n in range(50):
        await turns.of(RUN, [f"{n}.{m}" for m in range(1_000)])
    assert len(turns._runs[RUN]) < 10_000  # pyright: ignore[reportPrivateUsage]
