"""What goes to litellm, what comes back from it, and what its exceptions mean: without litellm."""

from __future__ import annotations

import json
from json import JSONDecodeError
from socket import gaierror
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT
from llm_proxy.upstream.litellm_errors import failure
from llm_proxy.upstream.litellm_shapes import (
    Arguments,
    Incoming,
    chat_arguments,
    embedding_arguments,
    signing_format,
)
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import FailureKind

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(provider: str = "mistral", *, stream: bool = False, supported: str = "", **fields: Any) -> Arguments:
    body = json.dumps({"model": "m", "messages": MESSAGES} | fields).encode()
    return chat_arguments(body, provider, stream=stream, supported=lambda model: supported.split())


@pytest.mark.parametrize(
    "name",
    [
        "api_base",
        "api_key",
        "base_url",
        "custom_llm_provider",
        "mock_response",
        "fallbacks",
        "model_list",
        "extra_headers",
        "headers",
        "callbacks",
        "logger_fn",
        "aws_access_key_id",
        "vertex_credentials",
        "extra_body",
        "timeout",
        "num_retries",
        "no-log",
        "litellm_logging_obj",
    ],
)
def test_a_caller_sets_nothing_of_litellm_itself(name: str) -> None:
    with pytest.raises(UpstreamFailure) as refused:
        chat(**dict[str, Any]({name: "x"}))
    failed = refused.value
    assert (failed.kind, failed.status) == (FailureKind.BAD_REQUEST, 400)
    error = json.loads(failed.body or b"")["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert repr(name) in error["message"]


def test_embeddings_take_their_own_fields_alone() -> None:
    body = json.dumps({"model": "m", "input": ["a"], "dimensions": 3}).encode()
    assert embedding_arguments(body, "mistral") == Arguments("m", {"input": ["a"], "dimensions": 3})
    with pytest.raises(UpstreamFailure, match="api_base"):
        embedding_arguments(b'{"model":"m","input":"a","api_base":"http://x"}', "mistral")


def test_hints_that_a_provider_does_not_know_are_left_out_and_named() -> None:
    given: dict[str, Any] = {"user": "u", "metadata": {"a": "b"}, "seed": 1, "store": True, "temperature": 0}
    sent = chat(supported="user metadata", **given)
    assert sent.dropped == ("metadata", "store")
    assert sent.fields == {"messages": MESSAGES, "user": "u", "seed": 1, "temperature": 0}


def test_nulls_are_not_sent() -> None:
    assert chat(tools=None, temperature=None).fields == {"messages": MESSAGES}


@pytest.mark.parametrize("kind", ["mcp", "file_search"])
def test_tools_that_litellm_would_run_itself_are_refused(kind: str) -> None:
    with pytest.raises(UpstreamFailure, match=kind):
        chat(
            tools=[
                {"type": "function", "function": {"name": "f"}},
                {"type": kind, "server_url": "litellm_proxy"},
            ]
        )


def test_a_stream_asks_for_usage_and_has_one_choice() -> None:
    assert chat(stream=True, n=1).fields["stream_options"] == {"include_usage": True}
    assert "stream_options" not in chat(stream_options={"include_usage": True}).fields
    assert chat(n=2).fields["n"] == 2
    with pytest.raises(UpstreamFailure, match="one choice"):
        chat(stream=True, n=2)


@pytest.mark.parametrize(
    ("provider", "model", "form"),
    [
        ("anthropic", "opus", ANTHROPIC_FORMAT),
        ("bedrock", "us.anthropic.claude-sonnet-4", ANTHROPIC_FORMAT),
        ("vertex_ai", "claude-opus-4", ANTHROPIC_FORMAT),
        ("vertex_ai", "gemini-3-pro", GEMINI_FORMAT),
        ("gemini", "gemini-3-pro", GEMINI_FORMAT),
        ("deepseek", "deepseek-reasoner", ""),
    ],
)
def test_whose_seal(provider: str, model: str, form: str) -> None:
    assert signing_format(provider, model) == form


DETAILS = [
    {"type": "reasoning.text", "text": "hm", "signature": "S1", "format": ANTHROPIC_FORMAT, "index": 0},
    {"type": "reasoning.encrypted", "data": "R1", "format": ANTHROPIC_FORMAT, "index": 1},
    {"type": "reasoning.text", "text": "unsigned", "format": ANTHROPIC_FORMAT, "index": 2},
    {"type": "reasoning.encrypted", "data": "G1", "format": GEMINI_FORMAT, "index": 3},
    {"type": "reasoning.summary", "summary": "s", "format": "openai-responses-v1", "index": 4},
    "nonsense",
]
BLOCKS = [
    {"type": "thinking", "thinking": "hm", "signature": "S1"},
    {"type": "redacted_thinking", "data": "R1"},
]


def assistant(provider: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "a"} | fields
    return chat(provider, messages=[message]).fields["messages"][0]


def test_signed_reasoning_goes_back_to_who_signed_it() -> None:
    assert assistant("anthropic", reasoning_details=DETAILS)["thinking_blocks"] == BLOCKS


@pytest.mark.parametrize("provider", ["mistral", "gemini"])
def test_signed_reasoning_goes_to_nobody_else(provider: str) -> None:
    said = assistant(provider, reasoning_details=DETAILS, reasoning_content="hm")
    assert said == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_blocks_that_the_caller_sends_stand() -> None:
    said = assistant("anthropic", reasoning_details=DETAILS, thinking_blocks=BLOCKS[:1])
    assert said["thinking_blocks"] == BLOCKS[:1]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SIGNED_CALL = CALL | {"extra_content": {"google": {"thought_signature": "G"}}}


def test_a_signed_call_goes_back_to_google_alone() -> None:
    (call,) = assistant("gemini", tool_calls=[SIGNED_CALL])["tool_calls"]
    assert call == CALL | {"provider_specific_fields": {"thought_signature": "G"}}
    assert assistant("mistral", tool_calls=[SIGNED_CALL, CALL])["tool_calls"] == [CALL, CALL]


@pytest.mark.parametrize("messages", ["x", None, ["x"], [{"role": "assistant", "tool_calls": "x"}], [1]])
def test_odd_messages_are_litellms_to_refuse(messages: Any) -> None:
    assert chat("anthropic", messages=messages).fields.get("messages") == messages


def test_a_whole_reply_carries_details_and_signatures() -> None:
    message: dict[str, Any] = {
        "role": "assistant",
        "reasoning_content": "hm",
        "thinking_blocks": BLOCKS,
        "tool_calls": [CALL | {"provider_specific_fields": {"thought_signature": "G"}}],
    }
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 3}}
    reply = {"choices": [{"index": 0, "message": message}], "usage": usage}
    read = json.loads(Incoming(ANTHROPIC_FORMAT).body(reply))
    said = read["choices"][0]["message"]
    assert said["reasoning_details"] == DETAILS[:2]
    assert said["content"] is None
    assert said["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "G"}}
    assert read["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 3


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": fields}]}


def read(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    return json.loads(frame[6:])


def test_a_streams_blocks_are_counted() -> None:
    incoming = Incoming(ANTHROPIC_FORMAT)
    pieces = [
        {"type": "thinking", "thinking": "h", "signature": None},
        {"type": "thinking", "thinking": "m"},
        {"type": "thinking", "thinking": "", "signature": "S1"},
        {"type": "redacted_thinking", "data": "R1"},
        {"type": "thinking", "thinking": "more"},
    ]
    frames = [incoming.frame(delta(thinking_blocks=[piece]), with_usage=False) for piece in pieces]
    details = [read(frame)["choices"][0]["delta"]["reasoning_details"][0] for frame in frames]
    assert [detail["index"] for detail in details] == [0, 0, 0, 1, 2]
    assert [detail.get("text") for detail in details] == ["h", "m", "", None, "more"]
    assert [detail.get("signature") for detail in details] == [None, None, "S1", None, None]


def test_usage_that_litellm_counted_itself_is_left_out() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert Incoming("").frame(delta() | {"usage": usage}, with_usage=False) == b""
    assert read(Incoming("").frame(delta() | {"usage": usage}, with_usage=True)) == {
        "id": "x",
        "choices": [],
        "usage": usage,
    }


def test_a_chunk_with_words_says_that_it_is_not_the_last() -> None:
    assert read(Incoming("").frame(delta(content="a"), with_usage=False))["choices"] == [
        {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    ]


def answered(status: int, body: bytes, **headers: str) -> Exception:
    request = httpx.Request("POST", "http://x")
    response = httpx.Response(status, content=body, headers=headers, request=request)
    return wrapped(httpx.HTTPStatusError("no", request=request, response=response))


class _Wrapper(Exception):
    """litellm's own, with a made-up answer."""

    status_code = 500

    def __init__(self, text: str = "wrapped") -> None:
        super().__init__(text)
        self.response = httpx.Response(self.status_code, request=httpx.Request("GET", "https://litellm.ai"))


def wrapped(cause: BaseException, wrapper: Exception | None = None) -> Exception:
    outer = wrapper or _Wrapper()
    outer.__cause__ = _Wrapper()
    outer.__cause__.__context__ = cause
    return outer


def vendor(**error: str) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, vendor(message="no"), FailureKind.AUTH),
        (429, vendor(code="insufficient_quota"), FailureKind.QUOTA_EXHAUSTED),
        (429, b"slow", FailureKind.RATE_LIMITED),
        (400, vendor(code="context_length_exceeded"), FailureKind.CONTEXT_LENGTH),
        (400, b"", FailureKind.BAD_REQUEST),
        (413, b"", FailureKind.TOO_LARGE),
        (529, vendor(type="overloaded_error"), FailureKind.OVERLOADED),
        (500, vendor(type="overloaded_error"), FailureKind.OVERLOADED),
        (503, b"\xff", FailureKind.SERVER_ERROR),
        (504, b"", FailureKind.GATEWAY_TIMEOUT),
    ],
)
def test_the_vendors_own_answer_counts(status: int, body: bytes, kind: FailureKind) -> None:
    failed = failure(answered(status, body), "sk-1")
    assert (failed.kind, failed.status) == (kind, status)
    assert (failed.body is not None) == (status in (400, 413, 422))


def test_what_litellm_read_from_a_text() -> None:
    class ContextWindowExceededError(_Wrapper):
        pass

    inner = answered(400, vendor(message="prompt is too long: 9 tokens"))
    failed = failure(wrapped(inner, ContextWindowExceededError()), "")
    assert failed.kind is FailureKind.CONTEXT_LENGTH


def test_retry_after() -> None:
    assert failure(answered(429, b"", **{"Retry-After": "7"}), "").retry_after_s == 7.0


def test_the_key_is_never_said() -> None:
    failed = failure(answered(400, vendor(message="bad key sk-12345!")), "sk-12345")
    assert b"bad key ***!" in (failed.body or b"")
    assert "sk-12345" not in repr(failed)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ConnectionRefusedError(), FailureKind.CONNECT_REFUSED),
        (gaierror(), FailureKind.DNS),
        (aiohttp.ConnectionTimeoutError(), FailureKind.CONNECT_TIMEOUT),
        (httpx.ConnectTimeout(""), FailureKind.CONNECT_TIMEOUT),
        (httpx.ReadError(""), FailureKind.CUT),
        (ContentLengthError(""), FailureKind.TRUNCATED),
        (aiohttp.ClientPayloadError(TransferEncodingError("")), FailureKind.CUT),
        (aiohttp.ServerDisconnectedError(), FailureKind.CUT),
        (ConnectionResetError(), FailureKind.CUT),
        (JSONDecodeError("", "", 0), FailureKind.MALFORMED),
        (KeyError("choices"), FailureKind.MALFORMED),
    ],
)
def test_what_broke(cause: BaseException, kind: FailureKind) -> None:
    failed = failure(wrapped(cause), "")
    assert (failed.kind, failed.status, failed.body) == (kind, None, None)


def test_what_litellm_could_not_send_is_the_callers() -> None:
    failed = failure(wrapped(KeyError("role"), _Wrapper("no role, sk-1")), "sk-1", sent=False)
    assert (failed.kind, failed.status) == (FailureKind.BAD_REQUEST, 400)
    assert json.loads(failed.body or b"")["error"]["message"] == "no role, ***"


def test_litellms_own_refusal_keeps_its_status() -> None:
    class Missing(_Wrapper):
        status_code = 401

    assert failure(Missing("no key"), "").kind is FailureKind.AUTH
