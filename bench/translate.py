"""What translating a stream costs, in this process: the same upstream bytes as they are, and translated.

`python -m bench.translate`. A reply of 1,000 deltas goes through `llm_proxy.flow.Flow`, one frame at a time,
into a sink that throws it away. Processor time, so that other work on the machine matters little.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import msgspec

from bench.mock import message_events, text_chunks
from llm_proxy.flow import Flow
from llm_proxy.output import Output, Translated, Verbatim
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.dialect import About, Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES

DELTAS = 1_000
ROUNDS = 15

_REQUESTS = {
    OPENAI_CHAT: b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}',
    OPENAI_RESPONSES: b'{"model":"m","stream":true,"input":"hi"}',
    ANTHROPIC_MESSAGES: (
        b'{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    ),
}


class _Nowhere:
    started = False

    async def release(self, data: bytes) -> None:
        self.started = True

    async def finish(self, tail: bytes) -> None:
        self.started = True


class _Reply:
    streamed = True
    status = 200
    content_type = "text/event-stream"
    dropped: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    async def chunk(self) -> bytes:
        return b""


def measure() -> dict[str, float]:
    """Milliseconds that translation adds per 100 deltas, by `caller → upstream`."""
    return asyncio.run(_measure())


async def _measure() -> dict[str, float]:
    streams = {OPENAI_CHAT: text_chunks(DELTAS), ANTHROPIC_MESSAGES: message_events(DELTAS)}
    found: dict[str, float] = {}
    for upstream, frames in streams.items():
        as_it_is = await _per_100(upstream, frames, upstream, partial(Verbatim, upstream))
        for caller in _REQUESTS:
            if caller is not upstream:
                taken = await _per_100(
                    caller, frames, upstream, lambda c=caller, u=upstream: _translated(c, u)
                )
                found[f"{caller.name} → {upstream.name}"] = taken - as_it_is
    return found


def _translated(caller: Dialect, upstream: Dialect) -> Output:
    about = About(call_id="1" * 32, model="m", created=0, request=caller.parse(_REQUESTS[caller]))
    return Translated(caller, upstream, about)


async def _per_100(
    caller: Dialect, frames: list[bytes], upstream: Dialect, make: Callable[[], Output]
) -> float:
    request = caller.parse(_REQUESTS[caller])
    taken: list[float] = []
    for _ in range(ROUNDS):
        flow = Flow(upstream, make(), _Nowhere(), _allow, judging=True, request=request)
        flow.begin(_Reply())
        began = time.process_time()
        for frame in frames:
            await flow.feed(frame)
        flow.arrived()
        await flow.end()
        taken.append(time.process_time() - began)
    return median(taken) * 1_000 / DELTAS * 100


async def _allow(calls: tuple[object, ...]) -> dict[tuple[int, int], str]:
    return {}


def main() -> None:
    print(msgspec.json.format(msgspec.json.encode(measure())).decode())


if __name__ == "__main__":
    main()
