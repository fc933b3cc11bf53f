"""An upstream that serves real servers' streams up to any frame, and then hangs up or falls silent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llm_proxy.chat.reply import Assembly
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.sse import SseReader
from tests.raw_upstream import Answer

GOLDEN = Path(__file__).parent.parent / "golden"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_MARK = re.compile(rb"<<([^ >]+) (\d+) (cut|stall) ([^ >]+)>>")
STALL_S = 30.0


@dataclass(frozen=True)
class Stop:
    """One call: `fixture` (dialect/name), how many of its frames come, and how it ends there."""

    fixture: str
    frames: int
    how: str
    caller: str

    @property
    def dialect(self) -> str:
        return self.fixture.partition("/")[0]

    @property
    def run(self) -> str:
        return f"{self.caller}.{self.fixture.replace('/', '.')}.{self.how}.{self.frames}"

    @property
    def mark(self) -> str:
        """What the prompt says, so that the upstream knows what to do."""
        return f"<<{self.fixture} {self.frames} {self.how} {self.run}>>"

    def flowed(self) -> bool:
        """Whether some of the reply came, or what it uses."""
        dialect = DIALECTS[self.dialect]
        read, reader, assembly = dialect.frame_reader(), SseReader(), Assembly()
        for sse in reader.feed(b"".join(frames_of(self.fixture)[: self.frames])):
            for event in read(sse).events:
                assembly.add(event)
        return assembly.output_chars > 0 or assembly.usage is not None


@cache
def frames_of(fixture: str) -> tuple[bytes, ...]:
    """The frames of a stream, each with its blank line."""
    raw = (GOLDEN / f"{fixture}.sse").read_bytes().replace(b"\r\n", b"\n")
    return tuple(frame + b"\n\n" for frame in raw.split(b"\n\n") if frame.strip())


class Stops:
    """What the upstream answers, and whom it has told all that it will tell."""

    def __init__(self) -> None:
        self.told: dict[str, asyncio.Event] = {}

    def reached(self, stop: Stop) -> asyncio.Event:
        return self.told.setdefault(stop.run, asyncio.Event())

    def __call__(self, body: bytes) -> Answer:
        found = _MARK.search(body)
        assert found is not None, body[:300]
        frames = frames_of(found[1].decode())
        count, how, run = int(found[2]), found[3], found[4].decode()
        pieces: list[bytes | float] = [_HEAD]
        pieces += [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames[:count]]
        event = self.told.setdefault(run, asyncio.Event())
        return _Answer(pieces, event.set, STALL_S if how == b"stall" else None)


class _Answer(list[bytes | float]):
    """Pieces to write; `told` is called once the last is on its way."""

    def __init__(self, pieces: list[bytes | float], told: Callable[[], None], stall_s: float | None) -> None:
        super().__init__(pieces)
        self._told = told
        self._stall_s = stall_s

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from super().__iter__()
        self._told()
        if self._stall_s is not None:
            yield self._stall_s


def asked(stop: Stop, model: str, padding: str, most: int) -> tuple[str, bytes]:
    """Path and body of the call, in its caller's dialect."""
    messages = [{"role": "user", "content": padding}, {"role": "user", "content": stop.mark}]
    match stop.caller:
        case "openai_chat":
            more = {"messages": messages, "max_completion_tokens": most}
        case "openai_responses":
            more = {"input": messages, "max_output_tokens": most}
        case "anthropic_messages":
            more = {"messages": messages, "max_tokens": most}
        case _:
            more = {"prompt": [padding + stop.mark], "max_tokens": most}
    body = {"model": model, "stream": True, **more}
    return DIALECTS[stop.caller].path, json.dumps(body).encode()
