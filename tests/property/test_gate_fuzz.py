"""Whatever a model's server sends, in whatever pieces: no call reaches an agent that was not judged.

Replies of every dialect are spoilt (frames dropped, doubled, swapped, bytes and values changed), cut at any
place, and pushed through the gate, verbatim and translated. Every denied call's arguments hold a word that
stands nowhere else: no client may read it in a call, and where no key was garbled it may not come out at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.archive.content import fold
from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Finished,
    Reasoning,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.reply import ToolCall
from llm_proxy.flow import Flow
from llm_proxy.output import Translated, Verbatim
from llm_proxy.policy.arguments import BadArgs, parse_arguments
from llm_proxy.upstream.provider import UpstreamFailure
from llm_proxy.wire.dialect import About, Denied, Dialect
from llm_proxy.wire.dialects import DIALECTS

NAMES = ("openai_chat", "openai_responses", "anthropic_messages")
SECRET = "SECRETWORD"
NOTE = "[llm-proxy] denied"
VALUES: list[Any] = [None, True, -1, 0, 1, 2, 10**20, 1.5, "", "x", "tool_use", "function", [], {}, [{}]]
KEYS = ["index", "id", "type", "name", "function", "tool_calls", "arguments", "input", "output_index", "x"]
SOAK_S = float(os.environ.get("LLM_PROXY_FUZZ_S", "300"))


class Rng(random.Random):
    """`garbled`: bytes or keys were changed, so that words may stand where no client looks."""

    garbled = False


def about(dialect: Dialect, *, stream: bool) -> About:
    key = "input" if dialect.name == "openai_responses" else "messages"
    asked: dict[str, Any] = {"model": "m", "stream": stream, key: [{"role": "user", "content": "hi"}]}
    if dialect.name == "anthropic_messages":
        asked["max_tokens"] = 9
    request = dialect.parse(json.dumps(asked).encode())
    return About(call_id="0199a000-0000-7000-8000-000000000001", model="m", created=1, request=request)


def reply_of(rng: Rng) -> list[Event]:
    """A reply with words, thoughts and up to four calls, the denied ones full of the secret word."""
    events: list[Event] = [Started("r", "m")]
    if rng.random() < 0.5:
        events.append(Reasoning(0, "Let me see."))
    events += [Text(0, word) for word in ("One ", "moment.")[: rng.randrange(3)]]
    calls = rng.randrange(1, 5)
    for index in range(calls):
        good = rng.random() < 0.4
        text = json.dumps({"id": "7"} if good else {"to": SECRET, SECRET: [SECRET]})
        name = "crm_read" if good else rng.choice(["wipe", "crm_read", "mail_send"])
        cut = rng.randrange(len(text))
        events.append(CallDelta(0, index, f"call_{index}", name, text[:cut]))
        events.append(CallDelta(0, index, arguments=text[cut:]))
    used = UsageSeen(Usage(input=5, output=7))
    return [*events, Finished(0, "tool_call"), used, Ended()]


def spoil_frames(frames: list[bytes], rng: Rng) -> list[bytes]:
    for _ in range(rng.randrange(4)):
        if not frames:
            break
        at, other = rng.randrange(len(frames)), rng.randrange(len(frames))
        match rng.randrange(4):
            case 0:
                del frames[at]
            case 1:
                frames.insert(other, frames[at])
            case 2:
                frames[at], frames[other] = frames[other], frames[at]
            case _:
                frames[at] = spoil_data(frames[at], rng)
    return frames


def spoil_data(frame: bytes, rng: Rng) -> bytes:
    """Changes a value or a key somewhere in the frame's JSON."""
    head, mark, data = frame.partition(b"data: ")
    try:
        value = json.loads(data)
    except ValueError:
        return frame
    places: list[tuple[Any, Any]] = []
    stack: list[Any] = [value]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, inner in items:
            places.append((node, key))
            stack.append(inner)
    if not places:
        return frame
    node, key = rng.choice(places)
    if isinstance(node, dict) and rng.random() < 0.4:
        rng.garbled = True
        node[rng.choice(KEYS)] = node.pop(key) if rng.random() < 0.5 else node[key]
    else:
        node[key] = rng.choice(VALUES)
    return head + mark + json.dumps(value).encode() + b"\n\n"


def spoil_bytes(stream: bytes, rng: Rng) -> bytes:
    data = bytearray(stream)
    for _ in range(rng.choice([0, 0, 0, 1, 2, 5])):
        if not data:
            break
        rng.garbled = True
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 40)]
            case 2:
                data[at:at] = rng.choice(
                    [b"\n", b"\r\n", b"\n\n", b"data: ", b"\0", b"{", b"}", b'"', b"\xff"]
                )
            case _:
                del data[at:]
    return bytes(data)


def chunks_of(stream: bytes, rng: Rng) -> list[bytes]:
    most = rng.choice([1, 7, 100, 5_000])
    chunks: list[bytes] = []
    while stream:
        size = rng.randrange(1, most + 1)
        chunks.append(stream[:size])
        stream = stream[size:]
    return chunks


class Sink:
    def __init__(self) -> None:
        self.started = False
        self.got = bytearray()

    async def release(self, data: bytes) -> None:
        self.started = True
        self.got += data

    async def finish(self, tail: bytes) -> None:
        self.got += tail


class Head:
    """How a reply begins."""

    status = 200
    content_type = ""
    headers: Mapping[str, str] = {}
    dropped: tuple[str, ...] = ()

    def __init__(self, streamed: bool) -> None:
        self.streamed = streamed

    async def chunk(self) -> bytes:
        return b""


class Judged:
    """Lets through what reads and holds no secret; keeps what it was asked."""

    def __init__(self) -> None:
        self.allowed: list[tuple[str, str]] = []
        self.asked = 0

    async def __call__(self, calls: tuple[ToolCall, ...]) -> Denied:
        denied: dict[tuple[int, int], str] = {}
        for call in calls:
            self.asked += 1
            read = parse_arguments(call.arguments, max_bytes=65_536, max_depth=16)
            if call.name == "crm_read" and not isinstance(read, BadArgs) and SECRET not in call.arguments:
                self.allowed.append((call.name, call.arguments))
            else:
                denied[call.choice, call.index] = NOTE
        return denied


def played(rng: Rng) -> tuple[Sink, Judged, bool, Dialect]:
    """One reply through the gate: what came out, what was judged, and whether it ended well."""
    upstream = DIALECTS[rng.choice(NAMES)]
    caller = upstream if rng.random() < 0.6 else DIALECTS[rng.choice(NAMES)]
    stream = rng.random() < 0.75
    came = body(upstream, reply_of(rng), rng, stream=stream)
    output = (
        Verbatim(upstream)
        if caller is upstream and rng.random() < 0.8
        else Translated(caller, upstream, about(caller, stream=stream))
    )
    sink, judge = Sink(), Judged()
    flow = Flow(upstream, output, sink, judge, judging=True, request=about(caller, stream=stream).request)

    async def run() -> bool:
        try:
            flow.begin(Head(stream))
            for chunk in chunks_of(came, rng):
                await flow.feed(chunk)
            flow.arrived()
            await sink.finish(await flow.end())
        except UpstreamFailure:
            return False
        return True

    return sink, judge, asyncio.run(run()), caller


def body(dialect: Dialect, events: list[Event], rng: Rng, *, stream: bool) -> bytes:
    assert dialect.translation is not None
    told = about(dialect, stream=stream)
    if not stream:
        whole = dialect.translation.render_body(events, told)
        framed = spoil_data(b"data: " + whole, rng) if rng.random() < 0.6 else b"data: " + whole
        return spoil_bytes(framed.removeprefix(b"data: ").strip(), rng)
    renderer = dialect.translation.renderer(told)
    rendered = renderer.render(events) + renderer.close()
    frames = [frame + b"\n\n" for frame in rendered.split(b"\n\n") if frame]
    return spoil_bytes(b"".join(spoil_frames(frames, rng)), rng)


def holds(seed: int) -> tuple[bool, bool]:
    """Asserts that what came out was judged. Whether the reply ended well, and whether it has a call."""
    rng = Rng(seed)
    sink, judge, well, caller = played(rng)
    got = bytes(sink.got)
    if not rng.garbled:
        assert SECRET.encode() not in got, seed
    calls = [
        call
        for choice in fold(caller, got, stream=sink.started or got.lstrip()[:1] != b"{").choices
        for call in choice.calls
    ]
    for call in calls:
        assert SECRET not in call.arguments, seed
        assert (call.name, _same(call.arguments)) in [(n, _same(a)) for n, a in judge.allowed], seed
    return well, bool(calls)


def _same(arguments: str) -> Any:
    """Arguments as a reader understands them: a translation may write them in another way."""
    try:
        return msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments


@given(st.integers(0, 2**62))
def test_nothing_unjudged_is_released(seed: int) -> None:
    holds(seed)


def test_the_fuzzing_gets_through_and_gets_refused() -> None:
    """A check of the check: some replies end well, some with calls, and some are refused."""
    ends = [holds(seed) for seed in range(400)]
    assert 40 < sum(well for well, _ in ends) < 390
    assert sum(called for _, called in ends) > 20


@pytest.mark.soak
def test_nothing_unjudged_is_released_for_minutes() -> None:
    """`LLM_PROXY_FUZZ_S` seconds (300) of fresh seeds; a failure names its seed."""
    start, rng, rounds = monotonic(), random.SystemRandom(), 0
    count: Callable[[], bool] = lambda: monotonic() - start < SOAK_S  # noqa: E731
    while count():
        holds(rng.randrange(2**62))
        rounds += 1
    assert rounds > 1_000
