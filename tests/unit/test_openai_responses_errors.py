"""OpenAI Responses: errors as the official SDK raises them, whole and in a stream."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from openai.types.responses import ResponseErrorEvent

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses.errors import error_body, error_frame
from llm_proxy.wire.sse import read_one

ERROR = ProxyError(Kind.UPSTREAM_TIMEOUT, "No answer within 30 s. Try again.", param="model")


def client(status: int, content: bytes, kind: str) -> openai.OpenAI:
    response = httpx.Response(status, headers={"content-type": kind}, content=content)
    transport = httpx.MockTransport(lambda _: response)
    return openai.OpenAI(
        api_key="x", base_url="http://x/v1", http_client=httpx.Client(transport=transport), max_retries=0
    )


def test_a_stream_that_breaks_raises_what_the_sdk_raises() -> None:
    created = b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n'
    with client(200, created + error_frame(ERROR), "text/event-stream") as api:
        incoming = api.responses.create(model="m", input="x", stream=True)
        assert next(incoming).type == "response.created"
        with pytest.raises(openai.APIError) as raised:
            next(incoming)
    assert (raised.value.message, raised.value.code) == (ERROR.message, "upstream_timeout")
    assert raised.value.param == "model"


def test_the_event_is_also_what_its_type_says() -> None:
    sse = read_one(error_frame(ERROR))
    event = ResponseErrorEvent.model_validate(json.loads(sse.data))
    assert (sse.event, event.type, event.message, event.param) == ("error", "error", ERROR.message, "model")
    assert event.code == "upstream_timeout"


def test_a_body() -> None:
    error = ProxyError(Kind.INVALID_REQUEST, "Send input", param="input", retryable=False)
    with (
        client(400, error_body(error, "c-1"), "application/json") as api,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        api.responses.create(model="m", input="x")
    assert raised.value.param == "input"


def test_an_upstreams_own_body_passes_on() -> None:
    error = ProxyError(Kind.UPSTREAM_FAILED, "No", body=b'{"error":{"message":"theirs"}}')
    assert error_body(error, "") == b'{"error":{"message":"theirs"}}'
    assert b"theirs" not in error_frame(error)
