"""A fast mock upstream: OpenAI chat completions, and Messages streams, each different, no model behind them.

`python -m bench.mock --port P`. It shares the machine with what it helps to measure, so a request is read by
byte search alone and replies are templates of fixed width with an id filled in. `GET /stats` counts them.
A model whose name ends in `-tools` answers with one tool call, one that ends in `-300` or `-1000` streams
that many deltas.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from functools import cache

import msgspec
import uvloop

from bench.http1 import Request, ServerConnection, serve

DELTAS = 50
"""Text deltas of one streamed reply, where the model's name doesn't say how many."""

PLAIN_EVENTS = DELTAS + 2
"""`data:` events of a streamed text reply: its deltas, the finish and `[DONE]`."""

_LENGTH = re.compile(rb'"model":\s*"[a-z]+-(300|1000)"')
_ID = b"0123456789abcdef"
_PROMPT_TOKENS = b'"prompt_tokens":0'
_TOTAL_TOKENS = b'"total_tokens":0'
_ANSWER = (
    "The order left the warehouse on Tuesday and the carrier has scanned it twice since then, so it should "
    "reach the customer by Friday noon; I have put a note on the ticket, asked the depot to confirm the last "
    "scan, and will look again tomorrow before the refund window closes."
)
_WORDS = _ANSWER.split()

TOOL_PIECES = ('{"que', 'ry":', '"late ', "parcel ", "case ", _ID.decode(), '",', '"lim', 'it":', " 5", "}")


class Stats(msgspec.Struct):
    """Requests served, by kind, and how many bytes of prompt came."""

    whole: int = 0
    streamed: int = 0
    request_bytes: int = 0


def _chunk(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": f"chatcmpl-{_ID.decode()}",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "mock-1",
        "choices": [choice],
    }


def _frame(payload: bytes) -> bytes:
    return _http_chunk(b"data: %b\n\n" % payload)


def _http_chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _texts(deltas: int) -> Iterator[str]:
    yield f"[{_ID.decode()}] "
    for n in range(deltas - 1):
        yield _WORDS[n % len(_WORDS)] + " "


def _text_deltas(deltas: int) -> Iterator[dict[str, object]]:
    texts = _texts(deltas)
    yield {"role": "assistant", "content": next(texts)}
    for text in texts:
        yield {"content": text}


def _tool_deltas() -> Iterator[dict[str, object]]:
    function = {"name": "docs_search", "arguments": ""}
    call = {"index": 0, "id": f"call_{_ID.decode()}", "type": "function", "function": function}
    yield {"role": "assistant", "content": None, "tool_calls": [call]}
    for piece in TOOL_PIECES:
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _usage(body: bytes, deltas: int) -> dict[str, object]:
    tokens = len(body) // 4
    return {"prompt_tokens": tokens, "completion_tokens": deltas, "total_tokens": tokens + deltas}


def _stream(deltas: Iterator[dict[str, object]], finish: str) -> list[bytes]:
    return [_frame(_compact(_chunk(delta))) for delta in deltas] + [_frame(_compact(_chunk({}, finish)))]


def _whole(message: dict[str, object], finish: str) -> bytes:
    """A reply with its usage at 0, to be filled in."""
    return _compact(
        {
            "id": f"chatcmpl-{_ID.decode()}",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "mock-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", **message},
                    "logprobs": None,
                    "finish_reason": finish,
                }
            ],
            "usage": {"prompt_tokens": 0, "completion_tokens": DELTAS, "total_tokens": 0},
            "system_fingerprint": None,
        }
    )


_TOOL_CALL = {
    "id": f"call_{_ID.decode()}",
    "type": "function",
    "function": {"name": "docs_search", "arguments": "".join(TOOL_PIECES)},
}
TEXT_REPLY = _whole({"content": f"[{_ID.decode()}] " + " ".join(_WORDS[:35]), "refusal": None}, "stop")
TOOL_REPLY = _whole({"content": None, "tool_calls": [_TOOL_CALL]}, "tool_calls")
TOOL_STREAM = _stream(_tool_deltas(), "tool_calls")
TOOL_EVENTS = len(TOOL_STREAM) + 1
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_DONE = _frame(b"[DONE]")
_LAST_CHUNK = b"0\r\n\r\n"


@cache
def _text_stream(deltas: int) -> list[bytes]:
    return _stream(_text_deltas(deltas), "stop")


def _message_events(deltas: int) -> Iterator[dict[str, object]]:
    usage = {"input_tokens": 250, "output_tokens": 1}
    message = {"id": f"msg_{_ID.decode()}", "type": "message", "role": "assistant", "model": "mock-1"}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in _texts(deltas):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": deltas}}
    yield {"type": "message_stop"}


@cache
def _message_stream(deltas: int) -> list[bytes]:
    return [_http_chunk(event) for event in message_events(deltas)]


def text_chunks(deltas: int) -> list[bytes]:
    """A whole chat stream as its events, without HTTP around them."""
    deltas_and_end = [*map(_chunk, _text_deltas(deltas)), _chunk({}, "stop")]
    return [*[b"data: %b\n\n" % _compact(chunk) for chunk in deltas_and_end], b"data: [DONE]\n\n"]


def message_events(deltas: int) -> list[bytes]:
    """A whole Messages stream as its events, without HTTP around them."""
    return [
        b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), _compact(event))
        for event in _message_events(deltas)
    ]


def _deltas(body: bytes) -> int:
    """How many deltas the model's name asks for."""
    asked = _LENGTH.search(body)
    return int(asked[1]) if asked else DELTAS


def _wants(body: bytes, field: bytes) -> bool:
    """Is this JSON field true? By byte search: prompts hold no unescaped quotes."""
    return b'"%b":true' % field in body or b'"%b": true' % field in body


class _StreamedReply:
    """One streamed reply: a write to the socket per event, each in its own turn of the loop, no delay."""

    __slots__ = ("_frames", "_id", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, frames: list[bytes], reply_id: bytes) -> None:
        self._transport = transport
        self._frames = iter(frames)
        self._id = reply_id
        self._loop = asyncio.get_running_loop()

    def step(self) -> None:
        frame = next(self._frames, None)
        if frame is None or self._transport.is_closing():
            return
        self._transport.write(frame.replace(_ID, self._id))
        self._loop.call_soon(self.step)


class MockConnection(ServerConnection):
    def __init__(self, stats: Stats, ids: Iterator[int]) -> None:
        super().__init__()
        self._stats = stats
        self._ids = ids

    def answer(self, request: Request) -> None:
        if request.target == b"/v1/chat/completions":
            self._complete(request.body)
        elif request.target == b"/v1/messages":
            self._message(request.body)
        elif request.target == b"/stats":
            self.reply(200, msgspec.json.encode(self._stats))
        elif request.target == b"/health/ready":
            self.reply(200, b"{}")
        else:
            self.reply(404, b'{"error":{"message":"unknown path"}}')

    def _complete(self, body: bytes) -> None:
        reply_id = b"%016x" % next(self._ids)
        tools = b'-tools"' in body
        self._stats.request_bytes += len(body)
        if not _wants(body, b"stream"):
            self._stats.whole += 1
            self.reply(200, _fill(TOOL_REPLY if tools else TEXT_REPLY, reply_id, body))
            return
        self._stats.streamed += 1
        deltas = _deltas(body)
        frames = TOOL_STREAM if tools else _text_stream(deltas)
        usage = [_usage_frame(body, deltas)] if _wants(body, b"include_usage") else []
        _StreamedReply(
            self.transport, [_STREAM_HEAD + frames[0], *frames[1:], *usage, _DONE + _LAST_CHUNK], reply_id
        ).step()

    def _message(self, body: bytes) -> None:
        """Messages are only streamed here."""
        reply_id = b"%016x" % next(self._ids)
        self._stats.request_bytes += len(body)
        if not _wants(body, b"stream"):
            self.reply(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"stream"}}')
            return
        self._stats.streamed += 1
        frames = _message_stream(_deltas(body))
        _StreamedReply(
            self.transport, [_STREAM_HEAD + frames[0], *frames[1:-1], frames[-1] + _LAST_CHUNK], reply_id
        ).step()


def _fill(template: bytes, reply_id: bytes, body: bytes) -> bytes:
    tokens = len(body) // 4
    filled = template.replace(_ID, reply_id)
    filled = filled.replace(_PROMPT_TOKENS, b'"prompt_tokens":%d' % tokens)
    return filled.replace(_TOTAL_TOKENS, b'"total_tokens":%d' % (tokens + DELTAS))


def _usage_frame(body: bytes, deltas: int) -> bytes:
    return _frame(_compact({**_chunk({}), "choices": [], "usage": _usage(body, deltas)}))


def main() -> None:
    parser = argparse.ArgumentParser(description="mock upstream")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    stats, ids = Stats(), itertools.count(1)
    uvloop.run(serve(lambda: MockConnection(stats, ids), port))


if __name__ == "__main__":
    main()
