"""What goes to a target: the dialect, the caller's bytes or a translation, and dialects that are probed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.outgoing import FOREIGN_SEAL, Composer, issuer, spoken
from llm_proxy.seals import Seals
from llm_proxy.upstream.provider import Endpoint
from llm_proxy.wire.dialects import DIALECTS
from tests.proxy import ProxyProcess, config, target
from tests.raw_upstream import Answer, raw_upstream, whole

CHAT, RESPONSES, MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"


def endpoint(*dialects: str, address: str = "a:1") -> Endpoint:
    return Endpoint("t", "openai", address=address, dialects=dialects)


def exchange(dialect: str, **body: Any) -> Exchange:
    said: Any = [{"role": "user", "content": "hi"}]
    asked = {"model": "m", "input" if dialect == RESPONSES else "messages": said} | body
    if dialect == MESSAGES:
        asked.setdefault("max_tokens", 500)
    parsed = DIALECTS[dialect].parse(json.dumps(asked).encode())
    return Exchange(
        "id", 1, DIALECTS[dialect], 0.0, body=parsed.body, request=parsed, passed={"anthropic-beta": "x"}
    )


@pytest.mark.parametrize(
    ("caller", "speaks", "absent", "expected"),
    [
        (CHAT, (CHAT, RESPONSES), (), CHAT),
        (RESPONSES, (CHAT, RESPONSES), (), RESPONSES),
        (RESPONSES, (CHAT, RESPONSES), (RESPONSES,), CHAT),
        (MESSAGES, (CHAT, RESPONSES), (), CHAT),
        (MESSAGES, ("openai_embeddings", RESPONSES), (), RESPONSES),
        (MESSAGES, (CHAT,), (CHAT,), None),
        ("openai_embeddings", (CHAT, RESPONSES), (), None),
        ("openai_embeddings", ("openai_embeddings",), (), "openai_embeddings"),
        (CHAT, ("passthrough",), (), None),
    ],
)
def test_the_dialect_that_is_spoken(
    caller: str, speaks: tuple[str, ...], absent: tuple[str, ...], expected: str | None
) -> None:
    found = spoken(DIALECTS[caller], endpoint(*speaks), absent)
    assert (found.name if found else None) == expected


def test_bytes_pass_where_nothing_has_to_change() -> None:
    asked = exchange(MESSAGES)
    sent = Composer(Seals()).compose(asked, endpoint(MESSAGES), "m", None, 64_000, ())
    assert sent.sending.body is asked.body
    assert (sent.edits, sent.rewritten, sent.dropped) == ((), False, ())
    assert sent.sending.path == "/messages"
    assert sent.sending.headers == {"anthropic-beta": "x"}


@pytest.mark.parametrize(
    ("caller", "field"), [(CHAT, "max_completion_tokens"), (RESPONSES, "max_output_tokens")]
)
def test_a_cap_is_written_where_the_caller_set_none(caller: str, field: str) -> None:
    sent = Composer(Seals()).compose(exchange(caller), endpoint(caller), "other", 77, 64_000, ())
    body = json.loads(sent.sending.body)
    assert (body["model"], body[field]) == ("other", 77)


@pytest.mark.parametrize(
    ("given", "cap", "largest", "expected"),
    [(None, None, 64_000, 64_000), (None, 77, 64_000, 77), (50, None, 64_000, 50), (50, 77, 64_000, 50)],
)
def test_messages_always_name_a_cap(given: int | None, cap: int | None, largest: int, expected: int) -> None:
    asked = exchange(CHAT, **({"max_completion_tokens": given} if given else {}))
    sent = Composer(Seals()).compose(asked, endpoint(MESSAGES), "claude-sonnet-4-5", cap, largest, ())
    assert json.loads(sent.sending.body)["max_tokens"] == expected
    assert sent.rewritten
    assert sent.sending.headers == {}, "headers of another dialect do not pass"


def test_chat_names_no_cap_of_its_own() -> None:
    sent = Composer(Seals()).compose(exchange(RESPONSES), endpoint(CHAT), "m", None, 64_000, ())
    assert "max_completion_tokens" not in json.loads(sent.sending.body)


def test_what_cannot_be_said_is_left_out_or_refused() -> None:
    asked = exchange(MESSAGES, top_k=5, context_management={"edits": []})
    sent = Composer(Seals()).compose(asked, endpoint(CHAT), "m", None, None, ())
    assert {"top_k", "context_management"} <= set(sent.dropped)
    with pytest.raises(ProxyError) as refused:
        Composer(Seals(), strict=True).compose(asked, endpoint(CHAT), "m", None, None, ())
    assert refused.value.kind is Kind.UNSUPPORTED_FEATURE
    assert "top_k" in refused.value.message
    plain = Composer(Seals(), strict=True).compose(exchange(MESSAGES), endpoint(CHAT), "m", None, None, ())
    assert plain.dropped == ()


def test_a_target_without_the_api_is_named() -> None:
    with pytest.raises(ProxyError) as refused:
        Composer(Seals()).compose(
            exchange("openai_embeddings", input="x"), endpoint(CHAT), "m", None, None, ()
        )
    assert "/v1/embeddings" in refused.value.message


def test_foreign_seals_are_no_reason_to_refuse() -> None:
    known = Seals()
    known.remember(["sig"], issuer(endpoint(address="b:1")))
    block = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    said: list[Any] = [{"role": "user", "content": "hi"}]
    said += [{"role": "assistant", "content": [block, {"type": "text", "text": "x"}]}, said[0]]
    for dialect in (MESSAGES, CHAT, RESPONSES):
        asked = exchange(MESSAGES, messages=said)
        sent = Composer(known).compose(asked, endpoint(dialect), "m", None, None, ())
        assert sent.dropped[0] == FOREIGN_SEAL
        assert b'"sig"' not in sent.sending.body
    own = Composer(known).compose(
        exchange(MESSAGES, messages=said), endpoint(MESSAGES, address="b:1"), "m", None, None, ()
    )
    assert own.dropped == ()


ANSWER = b"""{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[
{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"""


def copies(body: bytes) -> Answer:
    """A server that has no /responses, and no model named `gone` where it is asked for chat."""
    asked = json.loads(body)
    if "input" in asked and asked["model"] == "typo":
        return whole(b'{"error":{"message":"The model `typo` does not exist"}}', "404 Not Found")
    if "input" in asked:
        return whole(b'{"detail":"Not Found"}', "404 Not Found")
    return whole(ANSWER)


async def test_a_server_without_responses_is_then_asked_for_chat(tmp_path: Path) -> None:
    async with raw_upstream(copies) as upstream:
        models = {
            name: {"targets": [target(name, upstream.base_url, name)], "retries": 0} for name in ("m", "typo")
        }
        settings = config(upstream.base_url, models=models, prices={}, unpriced="free")
        async with ProxyProcess(tmp_path, settings) as proxy, proxy.sdk() as sdk:
            for _ in range(2):
                reply = await sdk.responses.create(model="m", input="hi")
                assert reply.output_text == "hello"
            tried = ["input" in json.loads(body) for body in upstream.bodies]
            assert tried == [True, False, False], "found out once, and remembered"
            with pytest.raises(openai.APIStatusError):
                await sdk.responses.create(model="typo", input="hi")
            assert ["input" in json.loads(body) for body in upstream.bodies[3:]] == [True]
            dialects = [view.upstream_dialect for view in proxy.views(status="ok")]
            assert dialects == [CHAT, CHAT]
