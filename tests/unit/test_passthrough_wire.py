"""What passes through: who it is for, what is sent on, what it used, and what it asks for."""

from __future__ import annotations

import json

import httpx
import pytest
from openai.types import ImagesResponse
from openai.types.audio import Transcription
from openai.types.audio.transcription_text_done_event import TranscriptionTextDoneEvent

from llm_proxy.chat.events import Ended, Event, Failed, Finished, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.passthrough import PASSTHROUGH, Units, billed, parse_request, units
from llm_proxy.wire.spans import splice
from llm_proxy.wire.sse import SseFrame, SseReader

JSON = "application/json"
WAV = b"RIFF\x24\x00\x00\x00WAVE" + bytes(4_096)


def form(**fields: str) -> tuple[str, bytes]:
    sent = httpx.Request(
        "POST",
        "http://x/",
        headers={"content-type": "multipart/form-data; boundary=0673edd15088de9a0bf37bf803b702b3"},
        data=fields,
        files={"file": ("a.wav", WAV, "audio/wav")},
    )
    return sent.headers["content-type"], sent.read()


def document(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_json_request() -> None:
    body = document(model="gpt-image-1", prompt="a cat", n=2, user="u", metadata={"run_id": "r", "x": "y"})
    read = parse_request("POST", "/images/generations", JSON, body)
    assert (read.model, read.user, read.run, read.stream, read.n) == ("gpt-image-1", "u", "r", False, 1)
    assert (read.messages, read.body, set(read.spans)) == (
        (),
        body,
        {"model", "prompt", "n", "user", "metadata"},
    )
    assert PASSTHROUGH.parse(body) == read
    edits = PASSTHROUGH.upstream_edits(read, "up", ("", 5), ask_usage=True)
    assert json.loads(splice(body, edits)) == {**json.loads(body), "model": "up"}
    assert PASSTHROUGH.upstream_edits(read, "gpt-image-1") == []


def test_a_form() -> None:
    kind, body = form(model="whisper", stream="True", user="u")
    read = parse_request("POST", "/audio/transcriptions", kind, body)
    assert (read.model, read.user, read.stream, read.spans) == ("whisper", "u", True, {})
    assert splice(body, PASSTHROUGH.upstream_edits(read, "whisper-1")) == body.replace(
        b"whisper", b"whisper-1"
    )


@pytest.mark.parametrize(
    ("method", "kind", "body"),
    [
        ("GET", "", b""),
        ("POST", JSON, b""),
        ("POST", "application/octet-stream", b"\x89PNG"),
        ("POST", JSON, b'[{"model":"m"}]'),
        ("POST", JSON, b"{}"),
        ("POST", JSON, b'{"model":null}'),
        ("POST", *form(purpose="batch")),
    ],
)
def test_a_request_without_a_model_stays_without(method: str, kind: str, body: bytes) -> None:
    read = parse_request(method, "/files", kind, body)
    assert (read.model, read.stream, read.messages) == ("", False, ())
    assert PASSTHROUGH.upstream_edits(read, "up") == []


@pytest.mark.parametrize(
    "kind", ["", JSON, "application/vnd.x+json; charset=utf-8", "text/plain", "image/png"]
)
def test_an_object_is_read_whatever_it_is_called(kind: str) -> None:
    assert parse_request("POST", "/x", kind, b' {"model":"m"}').model == "m"
    for body in (
        b'{"model":"a","model":"b"}',
        b'{"model":"a"',
        b'{"model":"a","x":"\\ud83d"}',
        b'{"model":7}',
    ):
        with pytest.raises(ProxyError):
            parse_request("POST", "/x", kind, body)


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        (JSON, b'\xef\xbb\xbf{"model":"m"}', "byte order mark"),
        (JSON, '{"model":"m"}'.encode("utf-16"), "not UTF-8"),
        (JSON, b"model=m", "not valid JSON"),
        ("application/x-www-form-urlencoded", b"model=m", "not passed through"),
        ("application/x-www-form-urlencoded", b'{"model":"m"}', "not passed through"),
        ("multipart/mixed; boundary=x", b"--x--", "not passed through"),
        ("multipart/form-data; boundary=x", b'{"model":"m"}', "does not begin"),
        (*form(model=""), "model is empty"),
    ],
)
def test_a_model_that_could_stand_unseen_is_refused(kind: str, body: bytes, says: str) -> None:
    with pytest.raises(ProxyError) as caught:
        parse_request("POST", "/images/edits", kind, body)
    assert caught.value.kind is Kind.INVALID_REQUEST
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("fields", "streams"),
    [
        ({"stream": True}, True),
        ({"stream": False}, False),
        ({"stream": "true"}, False),
        ({"stream_format": "sse"}, True),
        ({"stream_format": "audio"}, False),
        ({"user": 7, "metadata": [1]}, False),
    ],
)
def test_whether_it_streams(fields: dict[str, object], streams: bool) -> None:
    read = parse_request("POST", "/audio/speech", JSON, document(model="m", **fields))
    assert (read.stream, read.user, read.run) == (streams, "", "")


@pytest.mark.parametrize(
    ("method", "path", "cap"),
    [
        ("POST", "/images/generations", None),
        ("POST", "/audio/speech", None),
        ("POST", "/moderations", 0),
        ("POST", "/rerank", 0),
        ("POST", "/files", 0),
        ("get", "/videos/v1", 0),
        ("DELETE", "/x", 0),
        ("POST", "/x", None),
    ],
)
def test_what_generates_no_tokens_needs_none_held(method: str, path: str, cap: int | None) -> None:
    assert parse_request(method, path, JSON, b"{}").max_output == cap


IMAGES: dict[str, object] = {
    "created": 1713833628,
    "data": [{"b64_json": "iVBORw0KGgo="}],
    "usage": {
        "total_tokens": 100,
        "input_tokens": 50,
        "output_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    },
}
SPOKEN: dict[str, object] = {
    "text": "Imagine",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 4},
        "output_tokens": 101,
        "total_tokens": 115,
    },
}
TIMED: dict[str, object] = {"text": "Imagine", "usage": {"type": "duration", "seconds": 8.5}}


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (document(**IMAGES), Usage(input=50, output=50, image_input=40)),
        (document(**SPOKEN), Usage(input=14, output=101, audio_input=4)),
        (document(**TIMED), None),
        (b'{"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}', Usage(input=5, output=2)),
        (b'{"model":"jina","usage":{"total_tokens":815}}', Usage(input=815)),
        (
            b'{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4}}}',
            Usage(input=9, cached=4),
        ),
        (b'{"usage":{"input_tokens":0,"output_tokens":0}}', Usage()),
        (b'{"usage":{"input_tokens":"9"}}', None),
        (b'{"usage":null}', None),
        (b'{"object":"batch","status":"completed","usage":{"input_tokens":9}}', None),
        (b'{"status":null,"usage":{"input_tokens":9}}', Usage(input=9)),
        (b'{"error":{"message":"of a job"}}', None),
        (b"ID3\x04\x00", None),
        (b'{"usage":', None),
        (b"[1]", None),
        (b"", None),
    ],
)
def test_a_reply_tells_its_usage_and_is_never_unreadable(body: bytes, usage: Usage | None) -> None:
    frame = PASSTHROUGH.read_body(body)
    assert frame.raw is body
    assert frame.events == ((UsageSeen(usage), Ended()) if usage else (Ended(),))


def test_the_replies_are_their_vendors() -> None:
    ImagesResponse.model_validate(IMAGES)
    Transcription.model_validate(SPOKEN)
    Transcription.model_validate(TIMED)


DONE: dict[str, object] = {"type": "transcript.text.done", "text": "I see", "usage": SPOKEN["usage"]}


@pytest.mark.parametrize(
    ("data", "event", "events"),
    [
        (b'{"type":"transcript.text.delta","delta":"I","logprobs":[]}', "", ()),
        (
            document(**DONE),
            "",
            (UsageSeen(Usage(input=14, output=101, audio_input=4)), Finished(0, "stop")),
        ),
        (b'{"type":"speech.audio.delta","audio":"AAAA"}', "", ()),
        (b'{"type":"image_generation.partial_image","b64_json":"iV"}', "image_generation.partial_image", ()),
        (
            b'{"type":"image_generation.completed","b64_json":"iV","usage":{"input_tokens":5,"output_tokens":6}}',
            "image_generation.completed",
            (UsageSeen(Usage(input=5, output=6)), Finished(0, "stop")),
        ),
        (b'{"b64_json":"iV"}', "image_edit.completed", (Finished(0, "stop"),)),
        (b"[DONE]", "", (Ended(),)),
        (b"", "ping", ()),
        (b"not json", "", ()),
        (b'{"x":', "", ()),
        (b"[" * 100_000, "", ()),
        (b'{"type":"error","error":{"message":"no","code":"c"}}', "error", (Failed("no", "c"),)),
        (b'{"type":"error","code":"c","message":"no"}', "", (Failed("no", "c"),)),
        (b'{"error":{"message":"no","type":"t"}}', "", (Failed("no", "t"),)),
        (b"boom", "error", (Failed("The upstream reported an error"),)),
    ],
)
def test_what_a_frame_means(data: bytes, event: str, events: tuple[Event, ...]) -> None:
    assert PASSTHROUGH.read_frame(SseFrame(b"raw", event, data)).events == events


@pytest.mark.parametrize("size", [1, 13, 1 << 20])
def test_a_stream_of_speech_folds_to_its_usage(size: int) -> None:
    usage = b'{"input_tokens":12,"output_tokens":60,"total_tokens":72}'
    stream = (
        b'data: {"type":"speech.audio.delta","audio":"SUQz"}\n\n' * 3
        + b'data: {"type":"speech.audio.done","usage":'
        + usage
        + b"}\n\n"
    )
    TranscriptionTextDoneEvent.model_validate(DONE)
    reader, assembly = SseReader(), Assembly()
    for at in range(0, len(stream), size):
        for sse in reader.feed(stream[at : at + size]):
            for event in PASSTHROUGH.read_frame(sse).events:
                assembly.add(event)
    assert assembly.usage == Usage(input=12, output=60)
    assert assembly.finished()


def test_a_frame_that_was_cut_means_nothing() -> None:
    assert PASSTHROUGH.read_frame(SseFrame(b"data: {", "", b"{", truncated=True)).events == ()


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/images/generations", document(prompt="x"), Units(images=1)),
        ("/images/generations", document(prompt="x", n=4), Units(images=4)),
        ("/images/generations", document(n=None), Units(images=1)),
        ("/images/generations", document(n="3"), Units(images=3)),
        ("/images/generations", document(n=-3), Units(images=1)),
        ("/images/generations", document(n=0), Units(images=1)),
        ("/images/generations", document(n=10**30), Units(images=1_000_000)),
        ("/audio/speech", document(input="Grüße"), Units(characters=5)),
        ("/audio/speech", document(input=7), Units()),
        ("/rerank", document(query="q", documents=["a"]), Units(queries=1)),
        ("/v2/rerank", document(query="q", documents=["a"] * 101), Units(queries=2)),
        ("/rerank", b"", Units(queries=1)),
        ("/videos", document(seconds="8"), Units(milliseconds=8_000)),
        ("/videos", document(prompt="x"), Units(milliseconds=4_000)),
        ("/videos/video_1/content", b"", Units()),
        ("/moderations", document(input="x"), Units()),
        ("/files", b"", Units()),
        ("/audio/transcriptions", b"", Units()),
    ],
)
def test_what_is_asked_for(path: str, body: bytes, wanted: Units) -> None:
    assert units(path, body, JSON) == wanted


def test_what_a_form_asks_for() -> None:
    kind, body = form(model="gpt-image-1", n="2")
    assert units("/images/edits", body, kind) == Units(images=2)
    kind, body = form(model="gpt-image-1")
    assert units("/images/variations", body, kind) == Units(images=1)


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (document(**TIMED), Units(milliseconds=8_500)),
        (b'{"id":"x","meta":{"billed_units":{"search_units":2}}}', Units(queries=2)),
        (document(**IMAGES), Units()),
        (b'{"usage":{"seconds":-1}}', Units()),
        (b'{"usage":{"seconds":1e300}}', Units(milliseconds=1_000_000_000)),
        (b'{"usage":{"seconds":"8"}}', Units()),
        (b'{"meta":null,"usage":null}', Units()),
        (b"ID3", Units()),
    ],
)
def test_what_a_reply_bills(body: bytes, used: Units) -> None:
    assert billed(body) == used


def test_it_has_no_messages_and_no_calls() -> None:
    body = b'{"tool_calls":[{}]}'
    assert PASSTHROUGH.edit_body(body, {(0, 0): "n"}) is body
    assert PASSTHROUGH.message_facts(b"{}").texts == ()
    assert (PASSTHROUGH.path, PASSTHROUGH.cap_field, PASSTHROUGH.operation) == ("", "", "passthrough")
