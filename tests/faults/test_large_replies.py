"""A reply of 50 MB passes byte for byte and is recorded whole, and the proxy doesn't hold it twice."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.proxy import KEY, ProxyProcess, config
from tests.raw_upstream import Answer, events, raw_upstream, whole

SIZE = 50_000_000
MOST_GROWTH = 1.9
"""Times the reply's size: itself, its compressed form, 16 MB of SQLite's cache, and what is on its way."""

POLICY = {
    "policy": {"id": "open", "version": 1, "owner": "o@example.com", "mode": "enforce"},
    "posture": {"default": "allow"},
}
USAGE = b'"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}'
FRAMES = {"stream of 1 MB events": 1 << 20, "stream of 2 KB events": 2_048}
_WORDS = "order warehouse customer refund ticket carrier tomorrow deliver shipment address invoice payment"


@cache
def _media() -> bytes:
    """What hardly packs: a picture in base64."""
    return base64.b64encode(random.Random(5).randbytes(SIZE * 3 // 4))[:SIZE].ljust(SIZE, b".")


@cache
def _text() -> bytes:
    words = random.Random(11).choices(_WORDS.split(), k=SIZE // 6)
    return " ".join(words).encode()[:SIZE].ljust(SIZE, b".")


class Replies:
    """The upstream's answers, made once: by the request's `user`."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.sha256: dict[str, str] = {}
        """Of what the caller should get."""
        self.size: dict[str, int] = {}

    def __call__(self, body: bytes) -> Answer:
        kind = json.loads(body)["user"]
        if kind == "small":
            return whole(_body(b"hello"))
        if kind not in FRAMES:
            reply = _body(self._text)
            self._expect(kind, [reply])
            return whole(reply)
        pieces = list(self._frames(FRAMES[kind]))
        self._expect(kind, [piece for piece in pieces if b'"choices":[]' not in piece])
        return events(*pieces)

    def _frames(self, each: int) -> Iterator[bytes]:
        """As OpenAI sends them: usage in an event of its own, which the caller here did not ask for."""
        for start in range(0, SIZE, each):
            yield _chunk(b'{"content":"%b"}' % self._text[start : start + each], b"null")
        yield _chunk(b"{}", b'"stop"')
        yield b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[],%b}\n\n' % USAGE
        yield b"data: [DONE]\n\n"

    def _expect(self, kind: str, pieces: list[bytes]) -> None:
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        self.sha256[kind] = digest.hexdigest()
        self.size[kind] = sum(map(len, pieces))


def _body(text: bytes) -> bytes:
    message = b'{"role":"assistant","content":"%b"}' % text
    choice = b'{"index":0,"message":%b,"finish_reason":"stop"}' % message
    return b'{"id":"c","object":"chat.completion","model":"m","choices":[%b],%b}' % (choice, USAGE)


def _chunk(delta: bytes, finish: bytes) -> bytes:
    choice = b'{"index":0,"delta":%b,"finish_reason":%b}' % (delta, finish)
    return b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[%b]}\n\n' % choice


class Received(NamedTuple):
    sha256: str
    size: int
    call_id: str


async def _call(proxy: ProxyProcess, kind: str) -> Received:
    asked = {"model": "m", "user": kind, "messages": [{"role": "user", "content": "All of it."}]}
    digest, size = hashlib.sha256(), 0
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
        http.post(proxy.url, json={**asked, "stream": kind in FRAMES}) as reply,
    ):
        assert reply.status == 200
        async for chunk in reply.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        return Received(digest.hexdigest(), size, reply.headers["x-call-id"])


def _memory(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _forget_peak(pid: int) -> None:
    """`VmHWM` begins anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.parametrize("kind", ["whole", *FRAMES])
@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (POLICY, _text),
        pytest.param(None, _text, marks=pytest.mark.soak),
        pytest.param(None, _media, marks=pytest.mark.soak),
    ],
    ids=["policy", "no policy", "base64"],
)
async def test_a_large_reply_is_not_held_twice(
    policy: dict[str, Any] | None, text: Callable[[], bytes], kind: str, tmp_path: Path
) -> None:
    """A process for each: what the allocator keeps of one reply may be told of the next."""
    replies = Replies(text())
    async with (
        raw_upstream(replies) as upstream,
        ProxyProcess(tmp_path, config(upstream.base_url), policy=policy) as proxy,
    ):
        await _call(proxy, "small")  # loads what is loaded lazily
        pid = proxy.pid
        before = _memory(pid, "VmRSS")
        _forget_peak(pid)
        received = await _call(proxy, kind)
        grown = (_memory(pid, "VmHWM") - before) / SIZE
        assert (received.sha256, received.size) == (replies.sha256[kind], replies.size[kind])
        assert grown < MOST_GROWTH, f"memory grew by {grown:.2f} times the reply"
        view = proxy.view(received.call_id)
        assert view.emitted is not None
        assert view.usage is not None
        assert (view.usage.output, view.finish_reasons) == (9, ("stop",))
        got = view.emitted if view.released is None else view.released
        assert hashlib.sha256(got).hexdigest() == received.sha256
        assert (view.released is None) == (kind == "whole"), "usage that was not asked for is left out"
        assert len(view.emitted) >= len(got)
        assert view.reply is not None
        assert len(view.reply.choices[0].text) == SIZE
