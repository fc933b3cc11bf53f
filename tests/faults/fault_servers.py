"""Upstreams for the fault matrix: one that fails as its model is named, and ports that never answer.

A model's name is a row of `tests.faults.fault_rows`; `good` answers, `absent` is a model that isn't there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.raw_upstream import Answer, RawUpstream, events, model_of, whole

TEXT = "one two three four five six"
USED = {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26}
APART_S = 2.0
"""Between words and what goes wrong behind them: by then a caller has the words."""
HANGS_S = 600.0

REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": USED,
    }
).encode()


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _delta(finish: str | None = None, **delta: str) -> bytes:
    return _data({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


ROLE = _delta(role="assistant", content="")
WORDS = _delta(content="one two three")
END = [_delta("stop"), _data({"choices": [], "usage": USED}), b"data: [DONE]\n\n"]
BROKEN = b'data: {"choices": [{"ind\n\n'
IN_BAND = {"error": {"message": "The server had an error", "type": "server_error", "code": None}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def _named(name: str, **fields: object) -> bytes:
    return f"event: {name}\n".encode() + _data({"type": name, **fields})


OPENING = _named(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 20, "output_tokens": 1},
    },
)
BLOCK = _named("content_block_start", index=0, content_block={"type": "text", "text": ""})
SPOKEN = _named("content_block_delta", index=0, delta={"type": "text_delta", "text": "one two three"})
FAILED = _named("error", error=OVERLOADED["error"])


def _stream_or(stream: Answer, body: Answer) -> Callable[[bool], Answer]:
    return lambda streamed: stream if streamed else body


def _cut(*pieces: bytes | float) -> Answer:
    """An event stream whose connection closes in the middle of a chunk."""
    return [*events(*pieces)[:-1], b"40\r\ndata: {"]


def _short(body: bytes, *then: float) -> Answer:
    """Half of a body whose whole length was announced."""
    (answer,) = whole(body)
    assert isinstance(answer, bytes)
    return [answer[: -len(body) // 2], *then]


def _refusal(
    status_: int, code: str | None = None, type_: str = "", **more: object
) -> Callable[[bool], Answer]:
    body = {"error": {"message": "No.", "type": type_ or None, "param": None, "code": code, **more}}
    answer = whole(json.dumps(body).encode(), f"{status_} No")
    return lambda _: answer


def _limited(headers: Callable[[], dict[str, str]]) -> Callable[[bool], Answer]:
    """A 429 with these headers, made anew for each reply, as some hold times."""
    body = b'{"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}'

    def answer(_: bool) -> Answer:
        lines = "".join(f"\r\n{name}: {value}" for name, value in headers().items())
        return whole(body, f"429 Too Many Requests{lines}")

    return answer


def _anthropic(status: int) -> Callable[[bool], Answer]:
    return lambda _: whole(json.dumps(OVERLOADED).encode(), f"{status} Overloaded")


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


ANSWERS: dict[str, Callable[[bool], Answer]] = {
    "good": _stream_or(events(ROLE, _delta(content=TEXT), *END), whole(REPLY)),
    "absent": _refusal(404, "model_not_found", "invalid_request_error"),
    "slow first event": lambda _: [HANGS_S],
    "total_s is over": lambda _: [HANGS_S],
    "stall before a word": _stream_or(events(ROLE, HANGS_S), _short(REPLY, HANGS_S)),
    "stall mid-stream": lambda _: events(ROLE, WORDS, HANGS_S),
    "closed without an answer": lambda _: [],
    "cut before a word": lambda _: _cut(ROLE),
    "cut mid-stream": lambda _: _cut(ROLE, WORDS, APART_S),
    "body cut short": lambda _: _short(REPLY),
    "stream without an end marker": lambda _: events(ROLE),
    "words without an end marker": lambda _: events(ROLE, WORDS, APART_S),
    "malformed JSON": _stream_or(events(ROLE, BROKEN, *END), whole(REPLY[:-9])),
    "malformed event mid-stream": lambda _: events(ROLE, WORDS, APART_S, BROKEN, *END),
    "web page for a reply": lambda _: whole(b"<html>It works!</html>", content_type="text/html"),
    "400": _refusal(400, None, "invalid_request_error"),
    "400 context length": _refusal(400, "context_length_exceeded", "invalid_request_error"),
    "400 content filter": _refusal(
        400,
        "content_filter",
        status=400,
        innererror={
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    ),
    "401": _refusal(401, "invalid_api_key", "invalid_request_error"),
    "403": _refusal(403, None, "permission_error"),
    "404": _refusal(404, "model_not_found", "invalid_request_error"),
    "408": _refusal(408),
    "409": _refusal(409),
    "413": _refusal(413, None, "request_too_large"),
    "422": _refusal(422, None, "invalid_request_error"),
    "429": _limited(dict),
    "429 Retry-After in seconds": _limited(lambda: {"retry-after": "300"}),
    "429 Retry-After as a date": _limited(lambda: {"retry-after": format_datetime(_in(420.5), usegmt=True)}),
    "429 OpenAI resets": _limited(
        lambda: {
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-requests": "20m0s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "10m0s",
        }
    ),
    "429 Anthropic resets": _limited(
        lambda: {
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": _in(900).isoformat(),
        }
    ),
    "429 insufficient quota": _refusal(429, "insufficient_quota", "insufficient_quota"),
    "500": _refusal(500, None, "server_error"),
    "500 x-should-retry: false": lambda _: whole(b"", "500 No\r\nx-should-retry: false"),
    "502": lambda _: whole(b"<html>Bad Gateway</html>", "502 Bad Gateway", "text/html"),
    "503": _refusal(503),
    "504": _refusal(504),
    "529 Anthropic": _anthropic(529),
    "OpenAI error in the reply": _stream_or(
        events(ROLE, _data(IN_BAND)), whole(json.dumps(IN_BAND).encode())
    ),
    "OpenAI error mid-stream": lambda _: events(ROLE, WORDS, APART_S, _data(IN_BAND)),
    "Anthropic overload in the reply": lambda _: whole(json.dumps(OVERLOADED).encode()),
    "Anthropic overload at the start": lambda _: events(OPENING, FAILED),
    "Anthropic overload mid-stream": lambda _: events(OPENING, BLOCK, SPOKEN, APART_S, FAILED),
}


class FaultServers:
    """Where each of them is; `raw` tells what reached the one that answers."""

    def __init__(self, raw: RawUpstream) -> None:
        self.raw = raw
        self.elsewhere: dict[str, str] = {}
        """Base URLs of rows that have a port of their own."""

    def base_url(self, name: str) -> str:
        return self.elsewhere.get(name, self.raw.base_url)

    def asked(self, name: str) -> int:
        """Requests that reached the server for this model."""
        return sum(model_of(body) == name for body in self.raw.bodies)


@contextlib.asynccontextmanager
async def fault_servers(folder: Path) -> AsyncGenerator[FaultServers]:
    """All of them, until the block ends; `folder` takes a certificate."""
    async with contextlib.AsyncExitStack() as stack:
        raw = RawUpstream(_answer)
        found = FaultServers(raw)
        raw.base_url = f"http://{await _served(stack, raw.serve)}/v1"
        secret = _self_signed(folder)
        found.elsewhere = {
            "connection refused": f"http://{stack.enter_context(_closed_port())}/v1",
            "connection not accepted": f"http://{stack.enter_context(_full_port())}/v1",
            "unknown host name": "http://upstream.invalid/v1",
            "certificate not trusted": f"https://{await _served(stack, raw.serve, secret)}/v1",
            "no TLS on the port": f"https://{await _served(stack, _speaks_plainly)}/v1",
        }
        yield found


def _answer(body: bytes) -> Answer:
    asked = json.loads(body)
    return ANSWERS[asked["model"]](bool(asked.get("stream")))


async def _served(
    stack: contextlib.AsyncExitStack,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    secret: ssl.SSLContext | None = None,
) -> str:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secret)
    stack.callback(server.close)
    return "{}:{}".format(*server.sockets[0].getsockname())


async def _speaks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a plain HTTP server says to the start of a TLS handshake."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    writer.close()


@contextlib.contextmanager
def _closed_port() -> Generator[str]:
    """A port that is taken, so that nobody else listens there, and refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*held.getsockname())


@contextlib.contextmanager
def _full_port() -> Generator[str]:
    """A port whose queue is full of connections that nobody accepts: further ones wait for ever."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield "{}:{}".format(*listening.getsockname())


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_in(-3600))
        .not_valid_after(_in(86_400))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    file = folder / "self-signed.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
