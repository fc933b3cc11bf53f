"""Paths that pass through: one spelling each, no dialect's own path, and a word on unjudged calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.passthrough import checked_path, is_model_path, returns_calls


@pytest.mark.parametrize(
    "below",
    [
        "/images/generations",
        "/files/file-abc123/content",
        "/models/ft:gpt-4o-mini:org::abc",
        "/batches/batch_1/cancel",
        "/files/report%20(1).pdf",
        "/files/a%3Ab~c_d.json",
        "/x" * 250,
    ],
)
def test_a_path_with_one_reading_passes_unchanged(below: str) -> None:
    assert checked_path("/v1" + below) == below


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v2/files",
        "/V1/files",
        "v1/files",
        "/v1files",
        "//v1/files",
        "/v1//files",
        "/v1/files/",
        "/v1/files//a",
        "/v1/./files",
        "/v1/files/../chat/completions",
        "/v1/files/..",
        "/v1/files/...",
        "/v1/%2e%2e/chat",
        "/v1/files/%2E./x",
        "/v1/chat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%5ccompletions",
        "/v1/chat%5Ccompletions",
        "/v1/chat\\completions",
        "/v1/chat%252fcompletions",
        "/v1/ch%61t/completions",
        "/v1/files/%41",
        "/v1/files/%7e",
        "/v1/files/a;b=c",
        "/v1/files/a%3bb",
        "/v1/files/a%3fb",
        "/v1/files/a?b",
        "/v1/files/a#b",
        "/v1/files/a%23b",
        "/v1/files/a%00",
        "/v1/files/a%0d%0ax",
        "/v1/files/a\r\nx",
        "/v1/files/a\tb",
        "/v1/files/a b",
        "/v1/files/a\x7f",
        "/v1/files/%7f",
        "/v1/files/%c0%ae%c0%ae",
        "/v1/files/\uff0e\uff0e",
        "/v1/files/%ef%bc%8f",
        "/v1/files/ä",
        "/v1/files/%",
        "/v1/files/%2",
        "/v1/files/%zz",
        "/v1/files/a\n",
        "/v1/" + "x" * 509,
    ],
)
def test_a_path_with_two_readings_is_refused(path: str) -> None:
    with pytest.raises(ProxyError) as caught:
        checked_path(path)
    assert (caught.value.kind, caught.value.status) == (Kind.INVALID_REQUEST, 400)
    assert caught.value.message.isascii()
    assert not caught.value.retryable


@given(st.text(max_size=40))
def test_what_passes_is_plain(text: str) -> None:
    try:
        below = checked_path("/v1/" + text)
    except ProxyError:
        return
    assert below == "/" + text
    assert below.isascii()
    assert below.isprintable()
    assert not {"", ".", ".."} & set(below[1:].split("/"))


@pytest.mark.parametrize("dialect", [d for d in DIALECTS.values() if d.path], ids=lambda d: d.name)
def test_every_dialects_own_path_is_a_model_path(dialect: Dialect) -> None:
    assert is_model_path(dialect.path.removeprefix("/v1"))
    assert is_model_path(dialect.upstream_path.upper() + "/")


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/chat/completions/",
        "/Chat/COMPLETIONS",
        "//chat//completions//",
        "/ch%61t/completions",
        "/chat/completions/render",
        "/completions",
        "/beta/chat/completions",
        "/engines/davinci/completions",
        "/openai/deployments/x/chat/completions",
        "/embeddings",
        "/engines/ada/embeddings",
        "/responses",
        "/responses/compact",
        "/responses/anything",
        "/messages",
        "/messages/",
        "/messages/other",
        "/anthropic/v1/messages",
        "/Messages/count_tokens/",
    ],
)
def test_a_path_that_generates_is_a_dialects(path: str) -> None:
    assert is_model_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/images/generations",
        "/audio/speech",
        "/moderations",
        "/rerank",
        "/files",
        "/threads/thread_1/messages",
        "/responses/resp_abc",
        "/responses/resp_abc/cancel",
        "/responses/resp_abc/input_items",
        "/responses/input_tokens",
        "/chat/completions/chatcmpl-1",
        "/chat/completions/chatcmpl-1/messages",
        "/messages/batches",
        "/messages/batches/msgbatch_1/results",
        "/organization/usage/completions",
        "/completionsx",
    ],
)
def test_other_paths_are_not(path: str) -> None:
    assert not is_model_path(path)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/threads/thread_1/runs", "provider runs"),
        ("/Threads", "provider runs"),
        ("/assistants/asst_1", "provider runs"),
        ("/conversations/conv_1/items", "provider runs"),
        ("/evals/eval_1/runs", "provider runs"),
        ("/realtime/client_secrets", "past this proxy"),
        ("/chatkit/sessions", "past this proxy"),
        ("/batches", "batch"),
        ("/batches/batch_1", "batch"),
        ("/messages/batches/msgbatch_1/results", "batch"),
        ("/responses/resp_1", "stored"),
        ("/chat/completions/chatcmpl-1", "stored"),
        ("/models/gemini-3:generateContent", "another API"),
        ("/models/gemini-3%3AstreamGenerateContent", "another API"),
        ("/chat", "another API"),
        ("/complete", "another API"),
        ("/images/generations", ""),
        ("/images/edits", ""),
        ("/audio/transcriptions", ""),
        ("/audio/speech", ""),
        ("/moderations", ""),
        ("/rerank", ""),
        ("/files", ""),
        ("/files/file-1/content", ""),
        ("/uploads/upload_1/parts", ""),
        ("/vector_stores/vs_1/search", ""),
        ("/fine_tuning/jobs", ""),
        ("/videos", ""),
        ("/models/ft:gpt-4o", ""),
    ],
)
def test_why_calls_come_back_unjudged(path: str, says: str) -> None:
    reason = returns_calls(path)
    assert (says in reason) if says else (reason == "")
