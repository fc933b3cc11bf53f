"""OpenAI's error shapes, as the official SDK reads them."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat.errors import error_body, error_frame, model_body, models_body

EXPECTED = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}


def client(response: httpx.Response) -> openai.OpenAI:
    transport = httpx.MockTransport(lambda _: response)
    return openai.OpenAI(
        api_key="k",
        base_url="http://127.0.0.1/v1",
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_becomes_the_sdks_own_exception(kind: Kind) -> None:
    error = ProxyError(kind, "limit x is used up: wait", param="model")
    sdk = client(httpx.Response(error.status, content=error_body(error, "call-1")))
    with pytest.raises(EXPECTED[error.status]) as caught:
        sdk.chat.completions.create(model="m", messages=[])
    raised = caught.value
    assert isinstance(raised, openai.APIStatusError)
    assert (raised.code, raised.param, raised.status_code) == (kind.value, "model", error.status)
    assert "limit x is used up: wait" in raised.message
    assert raised.body["call_id"] == "call-1"  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]


def test_the_type_follows_the_kind() -> None:
    def type_of(kind: Kind) -> str:
        return json.loads(error_body(ProxyError(kind, "x"), ""))["error"]["type"]

    assert type_of(Kind.BUDGET_EXCEEDED) == "insufficient_quota"
    assert type_of(Kind.RATE_LIMITED) == "rate_limit_error"
    assert type_of(Kind.UPSTREAM_FAILED) == "server_error"
    assert type_of(Kind.MODEL_NOT_ALLOWED) == "permission_error"


def test_the_exact_shape() -> None:
    error = ProxyError(Kind.INVALID_REQUEST, "n is 0")
    assert json.loads(error_body(error, "")) == {
        "error": {
            "message": "n is 0",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request",
        }
    }


def test_an_upstreams_own_body_passes_on() -> None:
    body = b'{"error":{"message":"theirs"}}'
    assert error_body(ProxyError(Kind.UPSTREAM_FAILED, "x", body=body), "c") is body


def test_an_error_in_the_stream_raises_in_the_sdk() -> None:
    text = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    frame = error_frame(ProxyError(Kind.UPSTREAM_TIMEOUT, "target a was silent for 60 s"))
    assert b"[DONE]" not in frame
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text + frame)
    stream = client(response).chat.completions.create(model="m", messages=[], stream=True)
    got: list[str | None] = []
    with pytest.raises(openai.APIError, match="target a was silent") as caught:
        got.extend(chunk.choices[0].delta.content for chunk in stream)
    assert got == ["hi"]
    assert caught.value.code == "upstream_timeout"


def test_the_list_of_models_is_the_sdks() -> None:
    page = client(httpx.Response(200, content=models_body(["a", "b/c"], 1_700_000_000))).models.list()
    assert [(model.id, model.created, model.object) for model in page.data] == [
        ("a", 1_700_000_000, "model"),
        ("b/c", 1_700_000_000, "model"),
    ]
    one = client(httpx.Response(200, content=model_body("a", 5))).models.retrieve("a")
    assert (one.id, one.created) == ("a", 5)


def test_the_registry_names_each_dialect_by_its_own_name() -> None:
    assert DIALECTS["openai_chat"] is OPENAI_CHAT
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
    assert OPENAI_CHAT.path == "/v1" + OPENAI_CHAT.upstream_path
