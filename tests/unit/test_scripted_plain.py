"""Legacy completions, embeddings, and the paths that no script describes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import (
    Batch,
    Completion,
    CreateEmbeddingResponse,
    FileDeleted,
    FileObject,
    ImagesResponse,
    ModerationCreateResponse,
)

from llm_proxy.scripted.elsewhere import Asked
from llm_proxy.scripted.model import Dialect, RequestError, ScriptedModel, ScriptedReply, parse_request
from llm_proxy.scripted.reply import FaultKind
from llm_proxy.scripted.script import parse_script


def vendor(turns: str) -> ScriptedModel:
    return ScriptedModel(parse_script(f"default: {{turns: [{turns}]}}"))


def ask(turns: str, dialect: Dialect, **fields: Any) -> ScriptedReply:
    body = json.dumps({"model": "m", **fields}).encode()
    return vendor(turns).answer(parse_request(body, {}, dialect))


def test_a_completion() -> None:
    turn = "{when: {last_user_contains: upon}, text: a time, choices: [{text: two, finish: length}]}"
    reply = ask(turn, Dialect.COMPLETIONS, prompt="Once upon", n=2)
    parsed = Completion.model_validate_json(reply.body, strict=True)
    assert [(c.text, c.finish_reason) for c in parsed.choices] == [("a time", "stop"), ("two", "length")]
    assert parsed.usage is not None
    assert parsed.usage.prompt_tokens == 3


@pytest.mark.parametrize("include", [False, True])
def test_a_streamed_completion(include: bool) -> None:
    asked: dict[str, Any] = {
        "prompt": ["a", "b"],
        "stream": True,
        "stream_options": {"include_usage": include},
    }
    reply = ask("{text: a b c}", Dialect.COMPLETIONS, **asked)
    assert reply.frames[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in reply.frames[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == "a b c"
    assert [choice["finish_reason"] for choice in choices] == [None] * 3 + ["stop"]
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * 4 + [True] * include
    assert b'"error"' in ask("{text: a, error: {}}", Dialect.COMPLETIONS, **asked).frames[-1]


INPUTS: list[Any] = ["tank", ["tank", "pump"], [1, 2, 3], [[1, 2], [3]]]


@pytest.mark.parametrize(("given", "count"), list(zip(INPUTS, [1, 2, 1, 2], strict=True)))
def test_embeddings(given: Any, count: int) -> None:
    reply = ask("{usage: {input: 5}}", Dialect.EMBEDDINGS, input=given, dimensions=8)
    parsed = CreateEmbeddingResponse.model_validate_json(reply.body)
    assert [(e.index, len(e.embedding)) for e in parsed.data] == [(i, 8) for i in range(count)]
    assert sum(x * x for x in parsed.data[0].embedding) == pytest.approx(1)
    assert (parsed.usage.prompt_tokens, parsed.usage.total_tokens) == (5, 5)
    packed = ask("{}", Dialect.EMBEDDINGS, input=given, dimensions=8, encoding_format="base64")
    data = base64.b64decode(json.loads(packed.body)["data"][0]["embedding"])
    assert list(struct.unpack("<8f", data)) == pytest.approx(parsed.data[0].embedding)


def test_embeddings_fail_as_told() -> None:
    assert ask("{status: 429, retry_after: 1}", Dialect.EMBEDDINGS, input="a").status == 429
    assert "usage" not in json.loads(ask("{usage: none}", Dialect.EMBEDDINGS, input="a").body)
    assert b'"error"' in ask("{error: {}}", Dialect.EMBEDDINGS, input="a").body


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Dialect.COMPLETIONS, b"{"),
        (Dialect.COMPLETIONS, b'{"model":"m","n":0}'),
        (Dialect.COMPLETIONS, b'{"model":"m","prompt":{}}'),
        (Dialect.EMBEDDINGS, b'{"model":"m"}'),
        (Dialect.EMBEDDINGS, b'{"model":"m","input":"a","dimensions":0}'),
    ],
)
def test_bodies_that_are_no_requests(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_request(body, {}, dialect)


def elsewhere(
    method: str, path: str, turns: str = "{text: a}", form: bytes = b"", **fields: Any
) -> ScriptedReply:
    sort = "multipart/form-data; boundary=b" if form else "application/json"
    body = form or json.dumps(fields).encode()
    return vendor(turns).elsewhere(Asked(method, path, "x=1", sort, body))


FORM = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"content-type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("POST", "images/generations", ImagesResponse),
        ("POST", "moderations", ModerationCreateResponse),
        ("POST", "batches", Batch),
        ("GET", "batches/batch_1", Batch),
        ("POST", "batches/batch_1/cancel", Batch),
        ("GET", "files/file-1", FileObject),
        ("DELETE", "files/file-1", FileDeleted),
    ],
)
def test_shapes(method: str, path: str, shape: Any) -> None:
    fields: dict[str, Any] = {"endpoint": "/v1/embeddings", "input_file_id": "file-1"}
    reply = elsewhere(method, path, **fields)
    assert shape.model_validate_json(reply.body)
    assert reply == elsewhere(method, path, **fields)


def test_forms_and_bytes() -> None:
    upload = FileObject.model_validate_json(elsewhere("POST", "files", form=FORM).body)
    assert (upload.purpose, upload.bytes) == ("batch", 4)
    assert b"recording" in elsewhere("POST", "audio/transcriptions", form=FORM).body
    speech = elsewhere("POST", "audio/speech", model="tts", input="a", response_format="wav")
    assert dict(speech.headers)["content-type"] == "audio/wav"
    assert not speech.body.isascii()
    text = elsewhere("POST", "audio/translations", response_format="text")
    assert dict(text.headers)["content-type"].startswith("text/plain")
    assert elsewhere("GET", "files/file-9/content").body == b'{"file":"file-9"}\n'
    for path in ("files", "batches"):
        assert json.loads(elsewhere("GET", path).body)["object"] == "list"


def test_rerank_and_images() -> None:
    ranked = json.loads(elsewhere("POST", "rerank", query="a", documents=["x", "y", "z"], top_n=2).body)
    assert [r["index"] for r in ranked["results"]] == [0, 1]
    images = json.loads(elsewhere("POST", "images/generations", n=2, response_format="url").body)["data"]
    assert len(images) == 2
    assert images[0]["url"].endswith(".png")


def test_anything_else_is_echoed() -> None:
    assert json.loads(elsewhere("PUT", "fine_tuning/x", a=1).body) == {
        "object": "scripted.echo",
        "method": "PUT",
        "path": "fine_tuning/x",
        "query": "x=1",
        "bytes": 8,
    }


@pytest.mark.parametrize("form", [b"", FORM])
def test_the_faults_of_its_model(form: bytes) -> None:
    failed = elsewhere("POST", "audio/transcriptions", "{status: 503}", form, model="m")
    assert (failed.status, json.loads(failed.body)["error"]["type"]) == (503, "server_error")
    cut = elsewhere("POST", "audio/speech", "{cut_after: 1, latency_s: 2, retry_after: 4}", form, model="m")
    assert cut.fault is not None
    assert (cut.fault.kind, cut.latency_s) == (FaultKind.CUT, 2)
    assert cut.headers == (("content-type", "audio/mpeg"), ("retry-after", "4"))
    assert elsewhere("POST", "moderations", "{status: 503}", input="no model").status == 200
