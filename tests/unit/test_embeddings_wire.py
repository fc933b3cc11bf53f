"""Embeddings: inputs of every kind, the usage of a reply, and nothing decoded that need not be."""

from __future__ import annotations

import json

import pytest
from openai.types import CreateEmbeddingResponse

from llm_proxy.chat.events import Ended, Event, Failed, Started, Unreadable, Usage, UsageSeen
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_completions.prompts import APART
from llm_proxy.wire.openai_embeddings import OPENAI_EMBEDDINGS
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import splice
from llm_proxy.wire.sse import SseFrame

DIALECT = OPENAI_EMBEDDINGS
REPLY: dict[str, object] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0023064255, -0.009327292]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}


def request(**fields: object) -> WireRequest:
    return DIALECT.parse(json.dumps({"model": "m", **fields}).encode())


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("text", [b'"text"']),
        (["a", "b"], [b'"a"', b'"b"']),
        ([1, 2], [b"[1, 2]"]),
        ([[1, 2], [3]], [b"[1, 2]", b"[3]"]),
        ([{"text": "a"}, "b"], [b'{"text": "a"}', b'"b"']),
        (["a"] * (APART + 1), [json.dumps(["a"] * (APART + 1)).encode()]),
    ],
)
def test_every_kind_of_input(value: object, messages: list[bytes]) -> None:
    read = request(input=value, encoding_format="base64", dimensions=256, user="u")
    assert list(read.messages) == messages
    assert [read.body[a:b] for a, b in read.message_spans] == messages
    assert (read.n, read.stream, read.max_output, read.messages_key) == (1, False, 0, "input")
    assert (read.user, read.cap_fields) == ("u", ())


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b'{"input":"x"}', "model is missing", "model"),
        (b'{"model":"m"}', "input is missing", "input"),
        (b'{"model":"m","input":null}', "input is null", "input"),
        (b'{"model":"m","input":[]}', "input is empty", "input"),
        (b'{"model":"m","input":true}', "input is of no kind", "input"),
        (b'{"model":"m","input":["a",3]}', "input[1] is of no kind", "input[1]"),
        (b'{"model":"m","input":"a","input":"b"}', "occurs twice", "input"),
    ],
)
def test_what_is_refused(body: bytes, says: str, param: str) -> None:
    with pytest.raises(ProxyError) as caught:
        DIALECT.parse(body)
    assert caught.value.kind is Kind.INVALID_REQUEST
    assert says in caught.value.message
    assert caught.value.param == param


def test_only_the_model_changes_on_the_way() -> None:
    read = request(input="x")
    edits = DIALECT.upstream_edits(read, "up", ("max_tokens", 5), ask_usage=True)
    assert splice(read.body, edits) == b'{"model": "up", "input": "x"}'
    assert DIALECT.upstream_edits(read, "m") == []
    assert (DIALECT.operation, DIALECT.upstream_path) == ("embeddings", "/embeddings")


def test_documents_are_counted_and_said_by_nobody() -> None:
    read = DIALECT.message_facts(b'["a", "b"]')
    assert (read.role, read.texts, read.user_text) == ("", ("a", "b"), "")
    assert DIALECT.message_facts(b"[4, 5]").texts == (" token token",)


def test_a_reply_as_its_vendor_sends_it() -> None:
    body = json.dumps(REPLY).encode()
    CreateEmbeddingResponse.model_validate_json(body)
    frame = DIALECT.read_body(body)
    assert frame.raw is body
    assert frame.events == (Started("", "text-embedding-3-small"), UsageSeen(Usage(input=8)), Ended())


@pytest.mark.parametrize(
    ("change", "events"),
    [
        ({"usage": {"total_tokens": 9}}, (Started("", "m"), UsageSeen(Usage(input=9)), Ended())),
        ({"usage": {"prompt_tokens": 0, "total_tokens": 0}}, (Started("", "m"), UsageSeen(Usage()), Ended())),
        ({"usage": None}, (Started("", "m"), Ended())),
        ({"usage": {}}, (Started("", "m"), Ended())),
        ({"error": {"message": "no", "code": "c"}}, (Failed("no", "c"),)),
        ({"object": "error", "message": "no"}, (Failed("no"),)),
        ({"data": [{"embedding": "AAAA"}], "usage": None}, (Started("", "m"), Ended())),
    ],
)
def test_what_other_servers_say(change: dict[str, object], events: tuple[Event, ...]) -> None:
    body = json.dumps({**REPLY, "model": "m", **change}).encode()
    assert DIALECT.read_body(body).events == events


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"data":[', b'{"usage":{"prompt_tokens":"8"}}', b"\xff"])
def test_what_cant_be_read(body: bytes) -> None:
    (event,) = DIALECT.read_body(body).events
    assert isinstance(event, Unreadable)


def test_a_stream_is_none() -> None:
    (event,) = DIALECT.read_frame(SseFrame(b"data: {}\n\n", "", b"{}")).events
    assert isinstance(event, Unreadable)
    assert DIALECT.read_frame(SseFrame(b": ping\n\n")).events == ()
