"""Anthropic's error shapes and lists of models, as the official SDK reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import anthropic
import httpx2
import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES, COUNT_TOKENS, count_body
from llm_proxy.wire.anthropic_messages.errors import error_body, error_frame, model_body, models_body

EXPECTED = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    413: anthropic.ContentTooLargeError,
    429: anthropic.RateLimitError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
}
TYPES = {
    400: {"invalid_request_error"},
    401: {"authentication_error"},
    403: {"permission_error"},
    404: {"not_found_error"},
    413: {"request_too_large"},
    429: {"rate_limit_error"},
    502: {"api_error"},
    503: {"overloaded_error", "api_error"},
    504: {"timeout_error"},
}


def client(response: httpx2.Response) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="k",
        base_url="http://127.0.0.1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(lambda _: response)),
    )


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_becomes_the_sdks_own_exception(kind: Kind) -> None:
    error = ProxyError(kind, "limit x is used up: wait", param="model")
    sdk = client(httpx2.Response(error.status, content=error_body(error, "call-1")))
    with pytest.raises(EXPECTED[error.status]) as caught:
        sdk.messages.create(model="m", max_tokens=1, messages=[])
    raised = caught.value
    assert raised.status_code == error.status
    assert "limit x is used up: wait" in raised.message
    body = json.loads(error_body(error, "call-1"))
    assert raised.body == body
    assert (body["type"], body["request_id"]) == ("error", "call-1")
    assert body["error"]["type"] in TYPES[error.status]
    assert body["error"]["code"] == kind.value


def test_the_exact_shape() -> None:
    error = ProxyError(Kind.INVALID_REQUEST, "max_tokens is missing")
    assert error_body(error, "") == (
        b'{"type":"error","error":{"type":"invalid_request_error",'
        b'"message":"max_tokens is missing","code":"invalid_request"}}'
    )


def test_an_upstreams_own_body_passes_on() -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"theirs"}}'
    assert error_body(ProxyError(Kind.UPSTREAM_FAILED, "x", body=body), "c") is body


def test_an_error_in_the_stream_raises_in_the_sdk() -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
        b'"role":"assistant","model":"c","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    )
    frame = error_frame(ProxyError(Kind.UPSTREAM_TIMEOUT, "target a was silent for 60 s"))
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=start + frame)
    stream = client(response).messages.create(model="m", max_tokens=1, messages=[], stream=True)
    got: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="target a was silent") as caught:
        got.extend(event.type for event in stream)
    assert got == ["message_start"]
    assert caught.value.body == {
        "type": "error",
        "error": {
            "type": "timeout_error",
            "message": "target a was silent for 60 s",
            "code": "upstream_timeout",
        },
    }


def test_the_list_of_models_is_the_sdks() -> None:
    page = client(httpx2.Response(200, content=models_body(["a", "b/c"], 1_700_000_000))).models.list()
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    assert [(m.id, m.display_name, m.created_at, m.type, m.lifecycle) for m in page.data] == [
        ("a", "a", at, "model", "active"),
        ("b/c", "b/c", at, "model", "active"),
    ]
    assert (page.has_more, page.first_id, page.last_id) == (False, "a", "b/c")
    assert [model.id for model in page] == ["a", "b/c"]
    one = client(httpx2.Response(200, content=model_body("a", 5))).models.retrieve("a")
    assert (one.id, one.created_at) == ("a", datetime.fromtimestamp(5, UTC))
    assert json.loads(models_body([], 5)) == {
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_count_of_our_own_is_the_sdks() -> None:
    sdk = client(httpx2.Response(200, content=count_body(7)))
    assert sdk.messages.count_tokens(model="m", messages=[]).input_tokens == 7


def test_the_dialects_are_where_the_sdk_looks_for_them() -> None:
    for dialect in (ANTHROPIC_MESSAGES, COUNT_TOKENS):
        assert dialect.path == "/v1" + dialect.upstream_path
    assert (ANTHROPIC_MESSAGES.cap_field, COUNT_TOKENS.cap_field) == ("max_tokens", "")
    assert ANTHROPIC_MESSAGES.ordered
    assert COUNT_TOKENS.operation == "count_tokens"
