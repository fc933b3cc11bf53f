"""Legacy completion requests: what is read, what is refused and how, and what is sent on."""

from __future__ import annotations

import json

import pytest

from llm_proxy.counting.text import TokenCounter
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.openai_completions.prompts import APART, MAX_PROMPTS
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import splice

parse = OPENAI_COMPLETIONS.parse
facts = OPENAI_COMPLETIONS.message_facts


def request(**fields: object) -> WireRequest:
    return parse(json.dumps({"model": "m", **fields}).encode())


def refused(body: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        parse(body)
    assert (caught.value.kind, caught.value.status) == (Kind.INVALID_REQUEST, 400)
    assert not caught.value.retryable
    return caught.value


def test_what_is_acted_on() -> None:
    read = request(
        prompt="Say",
        stream=True,
        max_tokens=9,
        n=2,
        stream_options={"include_usage": True},
        suffix=".",
        user="u",
        metadata={"run_id": "r"},
        vendor=[1],
    )
    assert (read.model, read.stream, read.n, read.max_output) == ("m", True, 2, 9)
    assert (read.cap_fields, read.include_usage) == (("max_tokens",), True)
    assert (read.user, read.run, read.messages_key) == ("u", "r", "prompt")
    assert (read.tools, read.tool_forced) == (b"", False)


@pytest.mark.parametrize(
    ("prompt", "messages", "count"),
    [
        ("", [b'""'], 1),
        ("Say", [b'"Say"'], 1),
        (["a", "b"], [b'"a"', b'"b"'], 2),
        ([1, 22, 333], [b"[1, 22, 333]"], 1),
        ([[1], [2, 3]], [b"[1]", b"[2, 3]"], 2),
        (["x"] * APART, [b'"x"'] * APART, APART),
        (["x"] * (APART + 1), [json.dumps(["x"] * (APART + 1)).encode()], APART + 1),
        (None, [], 1),
    ],
)
def test_every_kind_of_prompt(prompt: object, messages: list[bytes], count: int) -> None:
    read = request(prompt=prompt, n=3)
    assert list(read.messages) == messages
    assert [read.body[a:b] for a, b in read.message_spans] == messages
    assert read.n == 3 * count


def test_without_a_prompt_one_is_generated() -> None:
    read = request()
    assert (read.messages, read.n, read.max_output) == ((), 1, None)


@pytest.mark.parametrize(
    ("fields", "n"), [({"best_of": 5}, 5), ({"best_of": 2, "n": 4}, 4), ({"n": None}, 1)]
)
def test_as_many_are_paid_for_as_are_generated(fields: dict[str, object], n: int) -> None:
    assert request(prompt="x", **fields).n == n


@pytest.mark.parametrize(
    ("raw", "texts", "said"),
    [
        (b'"Say \\u00e4"', ("Say ä",), "Say ä"),
        (b'""', (), ""),
        (b"[1, 2, 3]", (" token token token",), ""),
        (b'["a", "b"]', ("a", "b"), "a\nb"),
        (b"[[1], [2, 3]]", (" token token token",), ""),
        (b'{"odd": 1}', ('{"odd": 1}',), '{"odd": 1}'),
    ],
)
def test_what_a_prompt_says(raw: bytes, texts: tuple[str, ...], said: str) -> None:
    read = facts(raw)
    assert (read.role, read.texts, read.user_text) == ("user", texts, said)
    assert (read.results, read.proposed, read.images) == ((), (), ())


async def test_token_ids_count_as_many_as_they_are() -> None:
    counter = TokenCounter()
    await counter.ready()
    assert counter.count_now(facts(b"[" + b",".join([b"50256"] * 1_000) + b"]").texts) == 1_000


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "not valid JSON", None),
        (b"[1]", "not a JSON object", None),
        (b'\xef\xbb\xbf{"model":"m"}', "byte order mark", None),
        (b'{"model":"m","prompt":"\xff"}', "not UTF-8 (byte 23)", None),
        (b'{"model":"m","prompt":' + b"[" * 100_000, "nested too deeply", None),
        (b'{"prompt":"x"}', "model is missing", "model"),
        (b'{"model":1,"prompt":"x"}', "Expected `str`", "model"),
        (b'{"model":"m","model":"n","prompt":"x"}', "'model' occurs twice", "model"),
        (b'{"model":"m","prompt":"x","prom\\u0070t":"y"}', "'prompt' occurs twice", "prompt"),
        (
            b'{"model":"m","stream_options":{"include_usage":false,"include_usage":true}}',
            "occurs twice",
            "stream_options.include_usage",
        ),
        (b'{"model":"m","prompt":7}', "prompt is of no kind", "prompt"),
        (b'{"model":"m","prompt":{}}', "prompt is of no kind", "prompt"),
        (b'{"model":"m","prompt":[]}', "prompt is empty", "prompt"),
        (b'{"model":"m","prompt":["a",1]}', "prompt[1] is of no kind", "prompt[1]"),
        (b'{"model":"m","prompt":["a",["b"]]}', "prompt[1] is of no kind", "prompt[1]"),
        (b'{"model":"m","prompt":[{"a":1}]}', "prompt[0] is of no kind", "prompt[0]"),
        (b'{"model":"m","prompt":[1,2.5]}', "prompt is not a list of token ids", "prompt"),
        (b'{"model":"m","prompt":[true]}', "prompt is not a list of token ids", "prompt"),
        (b'{"model":"m","prompt":[[1],["b"]]}', "prompt[1] is not a list of token ids", "prompt[1]"),
        (b'{"model":"m","prompt":[[1],[]]}', "prompt[1] is empty", "prompt[1]"),
        (b'{"model":"m","n":0}', "n is 0: send a number from 1", "n"),
        (b'{"model":"m","best_of":1001}', "best_of is 1001", "best_of"),
        (b'{"model":"m","max_tokens":-1}', "max_tokens is -1: send a number from 0", "max_tokens"),
    ],
)
def test_what_is_refused(body: bytes, says: str, param: str | None) -> None:
    error = refused(body)
    assert says in error.message
    assert error.param == param


def test_too_many_prompts_are_refused() -> None:
    body = json.dumps({"model": "m", "prompt": ["x"] * (MAX_PROMPTS + 1)}).encode()
    assert f"send at most {MAX_PROMPTS}" in refused(body).message


@pytest.mark.parametrize(
    ("fields", "cap", "sent"),
    [
        ({}, ("max_tokens", 7), {"model": "up", "max_tokens": 7}),
        ({"max_tokens": 0}, None, {"model": "up", "max_tokens": 0}),
        ({"max_tokens": 90}, ("max_tokens", 7), {"model": "up", "max_tokens": 7}),
        ({"stream": True}, None, {"model": "up", "stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_what_is_sent_on(
    fields: dict[str, object], cap: tuple[str, int] | None, sent: dict[str, object]
) -> None:
    read = request(**fields)
    edits = OPENAI_COMPLETIONS.upstream_edits(read, "up", cap, ask_usage=True)
    assert json.loads(splice(read.body, edits)) == sent
    assert OPENAI_COMPLETIONS.cap_field == "max_tokens"


def test_no_run_hides_in_a_user_id_that_is_no_json() -> None:
    assert request(metadata={"user_id": '{"session_id": "s"}'}).run == "s"
    assert request(metadata={"user_id": "{x"}).user == "{x"
