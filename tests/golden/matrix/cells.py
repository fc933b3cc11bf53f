"""One cell of the matrix: a situation, the caller's dialect, the vendor's, streamed or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from llm_proxy.chat.events import Failed, Frame, Unreadable
from llm_proxy.output import Output, Translated, Verbatim
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.dialect import About, Dialect, Translation
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import splice
from llm_proxy.wire.sse import SseReader

FOLDER = Path(__file__).parent
SITUATIONS = tuple(sorted(path.name for path in FOLDER.iterdir() if (path / "ask.chat.json").exists()))
DIALECTS: Mapping[str, Dialect] = {
    "chat": OPENAI_CHAT,
    "responses": OPENAI_RESPONSES,
    "messages": ANTHROPIC_MESSAGES,
}
MODELS = {"chat": "gpt-5.1", "responses": "gpt-5.1-codex", "messages": "claude-sonnet-4-5"}
"""What the vendor of each dialect calls the model that callers know as `agent-model`."""

_STREAMED = {
    "chat": b'{"stream":true,"stream_options":{"include_usage":true},',
    "responses": b'{"stream":true,',
    "messages": b'{"stream":true,',
}


class Sent(NamedTuple):
    """What the vendor is sent, and what of the request it is not told."""

    body: bytes
    dropped: tuple[str, ...]


class Cell(NamedTuple):
    situation: str
    caller: str
    vendor: str

    def __str__(self) -> str:
        return f"{self.situation}-{self.caller}-{self.vendor}"

    @property
    def same(self) -> bool:
        return self.caller == self.vendor

    def path(self, ending: str) -> Path:
        return FOLDER / self.situation / "expected" / f"{self.caller}-{self.vendor}.{ending}"

    def ask(self, *, stream: bool) -> bytes:
        return ask(self.situation, self.caller, stream=stream)

    def reply(self, *, stream: bool) -> bytes:
        ending = "sse" if stream else "json"
        return (FOLDER / self.situation / f"reply.{self.vendor}.{ending}").read_bytes()

    def request(self, *, stream: bool) -> WireRequest:
        return DIALECTS[self.caller].parse(self.ask(stream=stream))

    def sent(self, *, stream: bool) -> Sent:
        request = self.request(stream=stream)
        model = MODELS[self.vendor]
        if self.same:
            edits = DIALECTS[self.caller].upstream_edits(request, model, ask_usage=stream)
            return Sent(splice(request.body, edits), ())
        prompt = translation(self.caller).read_prompt(request)
        written = translation(self.vendor).write_prompt(structs.replace(prompt, model=model))
        return Sent(written.body, tuple(dict.fromkeys((*prompt.dropped, *written.dropped))))

    def got(self, *, stream: bool, size: int = 1 << 20) -> bytes:
        """What the caller gets, the stream arriving in pieces of `size` bytes."""
        output = self._output(stream=stream)
        reply = self.reply(stream=stream)
        if not stream:
            frame = output.read(DIALECTS[self.vendor].read_body(reply))
            _check(frame)
            return output.whole(frame, {})
        passed = [output.pass_on(output.read(frame)) for frame in read_stream(self.vendor, reply, size)]
        return b"".join([*passed, output.close()])

    def _output(self, *, stream: bool) -> Output:
        caller, vendor = DIALECTS[self.caller], DIALECTS[self.vendor]
        if self.same:
            return Verbatim(caller)
        request = self.request(stream=stream)
        about = About(
            call_id="0198b2a7-0000-7000-8000-000000000001",
            model=request.model,
            created=1_762_000_000,
            request=request,
        )
        return Translated(caller, vendor, about)


def ask(situation: str, dialect: str, *, stream: bool) -> bytes:
    """A caller's request; one for a stream says so in front."""
    body = (FOLDER / situation / f"ask.{dialect}.json").read_bytes()
    return body.replace(b"{", _STREAMED[dialect], 1) if stream else body


def translation(dialect: str) -> Translation:
    found = DIALECTS[dialect].translation
    assert found is not None
    return found


def read_stream(dialect: str, raw: bytes, size: int) -> Sequence[Frame]:
    """The frames of a stream, as the dialect's own reader takes them."""
    sse, read = SseReader(), DIALECTS[dialect].frame_reader()
    arrived = [frame for at in range(0, len(raw), size) for frame in sse.feed(raw[at : at + size])]
    frames = [read(frame) for frame in (*arrived, *sse.close())]
    for frame in frames:
        _check(frame)
    return frames


def cells() -> Iterator[Cell]:
    for situation in SITUATIONS:
        for caller in DIALECTS:
            for vendor in DIALECTS:
                yield Cell(situation, caller, vendor)


def _check(frame: Frame) -> None:
    assert not any(isinstance(event, Failed | Unreadable) for event in frame.events), frame
