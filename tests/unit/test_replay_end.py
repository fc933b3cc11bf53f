"""A replay ends a while after the last reply, and never in the middle of one."""

from __future__ import annotations

import asyncio
from typing import Any

from llm_proxy.identity.keyring import hash_key
from llm_proxy.replaying.recorded import Run
from llm_proxy.replaying.serve import Replay, Rules

LINGER_S = 0.1


async def test_a_request_that_comes_while_it_lingers_is_answered_first() -> None:
    rules = Rules(keys=[hash_key("k")], linger_s=LINGER_S, max_body=100)
    replay = Replay(Run("r", "bot", (), 0), rules, lambda _: None)
    headers = [(b"authorization", b"Bearer k")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    leaves = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        raise AssertionError("nobody is there")

    ending = asyncio.create_task(replay.finished())
    await asyncio.sleep(0)  # it lingers from here on; a part of that time may pass unseen on a busy machine
    asking = asyncio.create_task(replay(scope, receive, send))
    done, _ = await asyncio.wait([ending], timeout=LINGER_S * 3)
    assert not done, "it ended in the middle of a request"
    leaves.set()
    await asking
    async with asyncio.timeout(LINGER_S * 20):
        await ending
