"""Refusals and failures in each dialect's own shape: its official SDK raises the type to be caught."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import speaking
from tests.e2e.scripted_house import House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "one two three four five six seven eight nine ten"
BUSY = "{message: busy sk-upstream, code: overloaded, type: overloaded_error}"
SCRIPT = f"""
models:
  m: {{turns: [{{text: Hi}}]}}
  refused: {{turns: [{{status: 400, error: {{message: too odd, type: invalid_request_error}}}}]}}
  s500: {{turns: [{{status: 500, error: {{message: boom sk-upstream}}}}]}}
  s429: {{turns: [{{status: 429, retry_after: 30}}]}}
  silent: {{turns: [{{text: {TEXT}, stall_after: 0}}]}}
  cut: {{turns: [{{text: {TEXT}, cut_after: 7, delta_s: 0.01}}]}}
  stall: {{turns: [{{text: {TEXT}, stall_after: 7}}]}}
  in-band: {{turns: [{{text: {TEXT}, error: {BUSY}, delta_s: 0.01}}]}}
  malformed: {{turns: [{{text: {TEXT}, malformed_after: 7, delta_s: 0.01}}]}}
"""
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
MODELS = ("m", "refused", "s500", "s429", "silent", "cut", "stall", "in-band", "malformed")
SPOKEN = {
    "chat": "openai_chat",
    "responses": "openai_responses",
    "messages": "anthropic_messages",
    "completions": "openai_completions",
    "embeddings": "openai_embeddings",
}
POOR_KEY = "sk-poor-0123456789abcdef"
POLICY: dict[str, Any] = {"policy": {"id": "p", "version": 1}, "posture": {"fallback": "allow"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models: dict[str, Any] = {
            f"{model}-{name}": {
                "targets": [speaking(dialect, f"{model}-{name}", upstream.origin, model)],
                "retries": 0,
                "timeouts": {"first_event_s": 1, "idle_s": 1},
            }
            for model in MODELS
            for name, dialect in SPOKEN.items()
        }
        settings = config(
            upstream.base_url,
            models=models | {"secret": {"targets": [speaking("openai_chat", "secret", upstream.origin)]}},
            default_model="m-chat",
            agents={
                "bot": {"keys": [KEY], "models": ["m-*", *(f"{model}-*" for model in MODELS)]},
                "strict": {"keys": [OTHER_KEY], "models": ["*"], "require_run": True},
                "poor": {"keys": [POOR_KEY], "models": ["*"]},
            },
            budgets=[{"id": "none", "agent": "poor", "window": "day", "requests": 0}],
            prices=dict.fromkeys(MODELS, PRICE),
        )
        async with ProxyProcess(tmp_path_factory.mktemp("refusals"), settings, policy=POLICY) as proxy:
            yield House(proxy, upstream)


@dataclass(frozen=True)
class Case:
    """What goes wrong: the model (with the dialect's name behind it), and what each SDK should see."""

    code: str
    status: int
    type: str
    """The type in Anthropic's error."""
    model: str = "m-{}"
    key: str = KEY
    more: tuple[tuple[str, Any], ...] = ()


CASES = {
    "wrong type": Case("invalid_request", 400, "invalid_request_error", more=(("stream", "maybe"),)),
    "wrong key": Case("invalid_credential", 401, "authentication_error", key="sk-wrong"),
    "not allowed": Case("model_not_allowed", 403, "permission_error", model="secret"),
    "no such model": Case("model_not_found", 404, "not_found_error", model="nope"),
    "no run": Case("run_required", 400, "invalid_request_error", key=OTHER_KEY),
    "too large": Case("body_too_large", 413, "request_too_large", more=(("pad", "x" * (33 << 20)),)),
    "no budget": Case("budget_exceeded", 429, "rate_limit_error", key=POOR_KEY),
    "upstream 500": Case("upstream_failed", 502, "api_error", model="s500-{}"),
    "upstream 429": Case("upstream_unavailable", 503, "overloaded_error", model="s429-{}"),
    "upstream silent": Case("upstream_timeout", 504, "timeout_error", model="silent-{}"),
}
TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    502: "InternalServerError",
}


async def _ask(
    proxy: ProxyProcess, name: str, model: str, key: str, stream: bool, more: dict[str, Any]
) -> Any:
    """A call by the official SDK; a stream is read to its end."""
    asked: dict[str, Any] = {"model": model.format(name)} | ({"stream": True} if stream else {})
    messages = [{"role": "user", "content": "hi"}]
    if name == "messages":
        async with anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=key, max_retries=0) as claude:
            client: Any = claude
            reply = await client.messages.create(**asked, messages=messages, max_tokens=50, extra_body=more)
            return [event async for event in reply] if stream else reply
    async with proxy.sdk(key) as sdk:
        client = sdk
        match name:
            case "chat":
                reply = await client.chat.completions.create(**asked, messages=messages, extra_body=more)
            case "responses":
                reply = await client.responses.create(**asked, input="hi", extra_body=more)
            case "completions":
                reply = await client.completions.create(**asked, prompt="hi", extra_body=more)
            case _:
                reply = await client.embeddings.create(model=asked["model"], input="hi", extra_body=more)
        return [event async for event in reply] if stream else reply


def _code(error: Any, name: str) -> tuple[str, str]:
    """The proxy's code and the error's own type, as the SDK tells them."""
    if name != "messages":
        return error.code, ""
    return error.body["error"]["code"], error.body["error"]["type"]


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("case", CASES)
async def test_before_the_first_byte(house: House, case: str, name: str) -> None:
    expected = CASES[case]
    more = dict(expected.more)
    if "stream" in more and name == "embeddings":
        more = {"model": 5}
    stream = name != "embeddings" and not more and case != "no run"
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
        await _ask(house.proxy, name, expected.model, expected.key, stream, more)
    error: Any = raised.value
    assert error.status_code == expected.status
    assert TYPES.get(expected.status, "") in [kind.__name__ for kind in type(error).__mro__] + [""]
    code, type_ = _code(error, name)
    assert code == expected.code
    assert type_ in ("", expected.type)
    assert "sk-upstream" not in str(error.body)
    assert "boom" not in str(error.body)
    if expected.key != "sk-wrong":
        view = house.proxy.view(error.response.headers["x-call-id"])
        assert view.status in (Status.REFUSED, Status.FAILED)
        assert view.problem is not None
        assert (view.problem.kind, view.problem.status) == (expected.code, expected.status)


LATE = {"cut": "upstream_failed", "stall": "upstream_timeout", "malformed": "upstream_failed", "in-band": ""}


@pytest.mark.parametrize("name", [name for name in SPOKEN if name != "embeddings"])
@pytest.mark.parametrize("model", LATE)
async def test_in_mid_stream(house: House, model: str, name: str) -> None:
    """The error is an event of the stream, which the SDK raises; no end marker follows."""
    with pytest.raises((openai.APIError, anthropic.APIStatusError)) as raised:
        await _ask(house.proxy, name, model + "-{}", KEY, True, {})
    code, _ = _code(raised.value, name)
    assert code == (LATE[model] or "upstream_unavailable")
    assert "sk-upstream" not in str(raised.value.body)
    view = [view for view in house.proxy.views() if view.model == f"{model}-{name}"][-1]
    assert view.status is Status.FAILED
    assert b"three" in (view.emitted or b"")


@pytest.mark.parametrize("name", ["chat", "responses", "messages", "completions"])
async def test_an_upstreams_own_refusal_passes(house: House, name: str) -> None:
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="too odd"):
        await _ask(house.proxy, name, "refused-{}", KEY, False, {})


@pytest.mark.parametrize("name", ["completions", "embeddings"])
async def test_what_a_provider_does_not_have(house: House, name: str) -> None:
    house.upstream.reset()
    with pytest.raises(openai.BadRequestError) as error:
        await _ask(house.proxy, name, "m-messages", KEY, False, {})
    assert error.value.code == "unsupported_feature"
    assert house.upstream.stats.total == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/threads"),
        ("POST", "/v1/threads/t/runs"),
        ("GET", "/v1/Threads/t/messages"),
        ("POST", "/v1/assistants"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/realtime/sessions"),
    ],
)
async def test_what_would_go_around_the_policy(house: House, method: str, path: str) -> None:
    house.upstream.reset()
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, house.proxy.origin + path, json={}, headers=headers()) as reply,
    ):
        error = json.loads(await reply.read())["error"]
        assert (reply.status, error["code"]) == (403, "policy_denied")
        assert house.proxy.view(reply.headers["x-call-id"]).status is Status.REFUSED
    assert house.upstream.stats.total == 0


async def test_a_stored_response_is_not_fetched_around_the_policy(house: House) -> None:
    """Neither the upstream's own, nor one that nobody had."""
    house.upstream.reset()
    async with house.proxy.sdk() as sdk:
        with pytest.raises(openai.BadRequestError, match="is none that you were given here"):
            await sdk.responses.retrieve("resp_68af0a4a6c3c8190b7c9a6b1f0d1e2f3")
    assert house.upstream.stats.total == 0


async def test_files_still_pass_under_a_policy(house: House) -> None:
    async with house.proxy.sdk() as sdk:
        assert (await sdk.files.retrieve("file-7")).id == "file-7"
        assert (await sdk.files.content("file-7")).content == b'{"file":"file-7"}\n'
    assert house.upstream.seen[-1].path == "/v1/files/file-7/content"
