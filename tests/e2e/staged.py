"""An upstream whose targets act on each other's cues: who is asked, who is done, and who was hung up on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence

from tests.raw_upstream import events, whole

Act = Sequence[bytes | float | str]
"""Bytes to write, seconds to wait, or a cue to wait for: `asked:NAME`, `done:NAME`, `never`."""
NEVER = "never"


class Staged:
    """Plays the act of the model that a request names, the name standing for the target."""

    def __init__(self, act: Callable[[str, str], Act]) -> None:
        self._act = act
        self._cues: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.base_url = ""
        self.asked: list[str] = []
        self.gone: list[str] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        self.open += 1
        try:
            body = json.loads(await _body(reader))
            name, said = body["model"], str(body.get("messages") or body.get("input"))
            self.asked.append(name)
            self._cues[f"asked:{name}"].set()
            for piece in self._act(name, said):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                else:
                    await self._wait(reader, piece)
        except ConnectionError:
            self.gone.append(name)
        finally:
            self.open -= 1
            self._cues[f"done:{name}"].set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _wait(self, reader: asyncio.StreamReader, cue: float | str) -> None:
        """A pause that a caller who hangs up ends."""
        left = asyncio.create_task(reader.read(1))
        came = asyncio.create_task(self._cues[cue].wait() if isinstance(cue, str) else asyncio.sleep(cue))
        done, _ = await asyncio.wait({left, came}, return_when=asyncio.FIRST_COMPLETED)
        came.cancel()
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left
        if left in done:
            raise ConnectionResetError


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return await reader.readexactly(int(lengths[0].partition(b":")[2]))


@contextlib.asynccontextmanager
async def staged(act: Callable[[str, str], Act]) -> AsyncGenerator[Staged]:
    """Serves on a free port until the block ends. `act` is told the target's name and what it was asked."""
    stage = Staged(act)
    server = await asyncio.start_server(stage.serve, "127.0.0.1", 0)
    stage.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield stage
    finally:
        server.close()


def chunk(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26}


def said(text: str, *, stream: bool, calls: Sequence[object] = (), id_: str = "r") -> list[bytes | float]:
    """A good chat reply: 20 tokens in and 6 out."""
    finish = "tool_calls" if calls else "stop"
    tools = {"tool_calls": calls} if calls else {}
    if not stream:
        message = {"role": "assistant", "content": text or None, **tools}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        answer = whole(json.dumps({"choices": choices, "usage": USAGE}).encode())
    else:
        words = [chunk(delta={"content": f"{word} "}) for word in text.split()]
        last = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
        begin = chunk(delta={"role": "assistant", **tools})
        answer = events(begin, *words, chunk(delta={}, finish_reason=finish), last, b"data: [DONE]\n\n")
    head, *rest = answer
    assert isinstance(head, bytes)
    return [head.replace(b"\r\n", b"\r\nx-request-id: %b\r\n" % id_.encode(), 1), *rest]


def failed(status: str, code: str = "") -> list[bytes | float]:
    return whole(json.dumps({"error": {"message": f"it is {status}", "code": code}}).encode(), status)
