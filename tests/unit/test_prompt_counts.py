"""Every part of a request that costs tokens has a count or a bound, in every dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.counting.prompt import (
    MOST_FILE,
    PER_MESSAGE,
    PER_REPLY,
    REFERENCE,
    PromptCounter,
)
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import ANY, CL100K, Tokenizer, tokenizer_of
from llm_proxy.intake import Reader
from llm_proxy.records.blobs import Addresser
from llm_proxy.wire.dialects import DIALECTS
from tests.unit.pictures import encoded, jpeg, png, wav

TEXTS = TokenCounter()
GPT_4O, CLAUDE = tokenizer_of("openai", "gpt-4o"), tokenizer_of("anthropic", "claude-haiku-4-5")
CHAT, RESPONSES, MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"
COMPLETIONS, EMBEDDINGS = "openai_completions", "openai_embeddings"
FIELD = {
    CHAT: "messages",
    MESSAGES: "messages",
    RESPONSES: "input",
    COMPLETIONS: "prompt",
    EMBEDDINGS: "input",
}
PICTURE = "data:image/png;base64," + encoded(png(1_024, 1_024))


def body(dialect: str, *messages: Any, **more: Any) -> bytes:
    usual = {"max_tokens": 5} if dialect == MESSAGES else {}
    return json.dumps({"model": "m", FIELD[dialect]: list(messages), **usual, **more}).encode()


async def count(dialect: str, raw: bytes, way: Tokenizer = ANY) -> int:
    """Counted at once, and as the reader does, which must be the same."""
    spoken = DIALECTS[dialect]
    request = spoken.parse(raw)
    counted = await PromptCounter(TEXTS).prompt(request, spoken, way)
    intake = await Reader(Addresser(1, b"s" * 32), TEXTS).read(request, spoken, count=True, ways=(way,))
    assert intake.tokens == intake.counted_by(way) == counted
    return counted


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


async def cost(dialect: str, *parts: Any, way: Tokenizer = ANY) -> int:
    """What parts add to an empty message."""
    return await count(dialect, body(dialect, user(*parts)), way) - PER_REPLY - PER_MESSAGE


IMAGES: dict[str, Any] = {
    CHAT: lambda url: {"type": "image_url", "image_url": {"url": url}},
    RESPONSES: lambda url: {"type": "input_image", "image_url": url},
    MESSAGES: lambda url: {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
        if url.startswith("data:")
        else {"type": "url", "url": url},
    },
}


@pytest.mark.parametrize("dialect", IMAGES)
async def test_an_inline_picture_costs_by_its_size_and_one_elsewhere_the_most(dialect: str) -> None:
    part = IMAGES[dialect]
    assert await cost(dialect, part(PICTURE), way=GPT_4O) == 765
    assert await cost(dialect, part(PICTURE), way=CLAUDE) == 1_399
    large = "data:image/jpeg;base64," + encoded(jpeg(8_000, 8_000, before=70_000))
    assert await cost(dialect, part(large), way=CLAUDE) == 1_600
    assert await cost(dialect, part("https://example.com/a.png"), way=GPT_4O) == 1_445
    assert await cost(dialect, part(PICTURE), part(PICTURE), way=GPT_4O) == 2 * 765


async def test_low_detail_costs_less() -> None:
    low = {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}
    assert await cost(CHAT, low, way=GPT_4O) == 85
    assert await cost(RESPONSES, IMAGES[RESPONSES](PICTURE) | {"detail": "low"}, way=GPT_4O) == 85


async def test_pictures_in_results_of_tools() -> None:
    image = IMAGES[MESSAGES](PICTURE)
    result = {"type": "tool_result", "tool_use_id": "x", "content": [image]}
    assert await cost(MESSAGES, result, way=CLAUDE) == 1_399
    output = {"type": "function_call_output", "call_id": "x", "output": [IMAGES[RESPONSES](PICTURE)]}
    assert await count(RESPONSES, body(RESPONSES, output), GPT_4O) == PER_REPLY + PER_MESSAGE + 765
    drawn = {"type": "image_generation_call", "id": "x", "result": encoded(png(512, 512))}
    assert await count(RESPONSES, body(RESPONSES, drawn), GPT_4O) == PER_REPLY + PER_MESSAGE + 255


async def test_sound_costs_by_its_length() -> None:
    def sound(data: str, form: str) -> dict[str, Any]:
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}

    assert 320 <= await cost(CHAT, sound(encoded(wav(10)), "wav")) <= 322
    assert 320 <= await cost(RESPONSES, sound(encoded(wav(10)), "wav")) <= 322
    assert await cost(CHAT, sound(encoded(b"ID3" + b"\0" * 59_997), "mp3")) == 60 * 32


async def test_files_are_bounded_by_their_bytes() -> None:
    data = encoded(b"%PDF-1.7" + b"x" * 2_992)
    files = [
        (CHAT, {"type": "file", "file": {"file_data": "data:application/pdf;base64," + data}}),
        (RESPONSES, {"type": "input_file", "file_data": "data:application/pdf;base64," + data}),
        (MESSAGES, {"type": "document", "source": {"type": "base64", "data": data}}),
    ]
    for dialect, part in files:
        assert await cost(dialect, part) == 3_000
    elsewhere = [
        (CHAT, {"type": "file", "file": {"file_id": "file-1"}}),
        (RESPONSES, {"type": "input_file", "file_url": "https://example.com/a.pdf"}),
        (MESSAGES, {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}),
    ]
    for dialect, part in elsewhere:
        assert await cost(dialect, part) == MOST_FILE
    assert await cost(MESSAGES, {"type": "container_upload", "file_id": "file-1"}) == 0


async def test_what_is_declared_is_counted() -> None:
    tool = {"name": "lookup", "description": "word " * 100, "parameters": {"type": "object"}}
    declared: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"tools": [{"type": "function", "function": tool}]}),
        (CHAT, {"functions": [tool]}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": tool}}),
        (CHAT, {"prediction": {"type": "content", "content": "word " * 100}}),
        (RESPONSES, {"instructions": "word " * 100}),
        (RESPONSES, {"tools": [{"type": "function", **tool}]}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": tool}}}),
        (MESSAGES, {"system": "word " * 100}),
        (MESSAGES, {"system": [{"type": "text", "text": "word " * 100}]}),
        (MESSAGES, {"tools": [tool]}),
        (MESSAGES, {"output_config": {"format": tool}}),
        (COMPLETIONS, {"suffix": "word " * 100}),
    ]
    for dialect, more in declared:
        said = "hi" if dialect == COMPLETIONS else {"role": "user", "content": "hi"}
        plain, with_it = body(dialect, said), body(dialect, said, **more)
        assert await count(dialect, with_it) - await count(dialect, plain) >= 100, (dialect, more)


async def test_calls_and_results_of_tools() -> None:
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "lookup", "arguments": '{"q":"' + "word " * 50 + '"}'},
    }
    chat = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "word " * 50},
    ]
    use = {"type": "tool_use", "id": "c", "name": "lookup", "input": {"q": "word " * 50}}
    messages = [
        {"role": "assistant", "content": [use]},
        user({"type": "tool_result", "tool_use_id": "c", "content": "word " * 50}),
    ]
    responses = [
        {
            "type": "function_call",
            "call_id": "c",
            "name": "lookup",
            "arguments": '{"q":"' + "word " * 50 + '"}',
        },
        {"type": "function_call_output", "call_id": "c", "output": "word " * 50},
    ]
    for dialect, items in ((CHAT, chat), (MESSAGES, messages), (RESPONSES, responses)):
        assert 100 < await count(dialect, body(dialect, *items)) < 140


async def test_anthropics_own_words_around_tools() -> None:
    plain = body(MESSAGES, user({"type": "text", "text": "hi"}))
    tooled = body(MESSAGES, user({"type": "text", "text": "hi"}), tools=[{"name": "f", "input_schema": {}}])
    assert await count(MESSAGES, tooled, CLAUDE) - await count(MESSAGES, plain, CLAUDE) > CLAUDE.tools == 530


async def test_what_is_sealed_costs_by_its_length_and_what_is_elsewhere_a_bound() -> None:
    seal = "x" * 400
    thought = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": seal}
    base = PER_REPLY + PER_MESSAGE
    assert await count(RESPONSES, body(RESPONSES, thought)) == base + 100
    compaction = {"type": "compaction", "encrypted_content": seal}
    assert await count(RESPONSES, body(RESPONSES, compaction)) == base + 100
    assert await cost(MESSAGES, {"type": "redacted_thinking", "data": seal}) == 100
    details = [{"type": "reasoning.encrypted", "data": seal}]
    chat = body(CHAT, {"role": "assistant", "reasoning_details": details})
    assert await count(CHAT, chat) == base + 100
    assert await count(RESPONSES, body(RESPONSES, {"type": "item_reference", "id": "x"})) == base + REFERENCE
    assert await count(CHAT, body(CHAT, {"role": "assistant", "audio": {"id": "x"}})) == base + REFERENCE


async def test_stored_input_has_a_bound() -> None:
    said = {"role": "user", "content": "hi"}
    plain = await count(RESPONSES, body(RESPONSES, said))
    assert await count(RESPONSES, body(RESPONSES, said, prompt={"id": "p"})) == plain + REFERENCE
    assert await count(RESPONSES, body(RESPONSES, said, conversation="c")) == plain + MOST_FILE
    assert await count(RESPONSES, body(RESPONSES, said, conversation=None)) == plain
    assert await count(CHAT, body(CHAT, said, conversation="c")) == await count(CHAT, body(CHAT, said))


@pytest.mark.parametrize("dialect", [COMPLETIONS, EMBEDDINGS])
async def test_token_ids_count_one_each(dialect: str) -> None:
    base = PER_REPLY + PER_MESSAGE
    assert await count(dialect, body(dialect, *range(500))) == base + 500
    assert await count(dialect, body(dialect, [1, 2, 3], [4, 5])) == base + PER_MESSAGE + 5
    assert await count(dialect, body(dialect, "hello world", "hello")) == base + PER_MESSAGE + 3


async def test_each_model_counts_in_its_own_encoding_and_the_most_is_told() -> None:
    spoken = DIALECTS[CHAT]
    request = spoken.parse(body(CHAT, {"role": "user", "content": "日本語のとても長い文章です。" * 20}))
    old = tokenizer_of("openai", "gpt-4")
    reader = Reader(Addresser(1, b"s" * 32), TEXTS)
    intake = await reader.read(request, spoken, count=True, ways=(GPT_4O, old))
    new_tokens, old_tokens = intake.counted[GPT_4O], intake.counted[old]
    assert old.encoding == CL100K
    assert old_tokens > new_tokens > 0
    assert intake.tokens == old_tokens
    assert intake.counted_by(ANY) == old_tokens
    again = await reader.read(request, spoken, count=True, ways=(GPT_4O,))
    assert (again.tokens, again.counted) == (new_tokens, {GPT_4O: new_tokens})


@pytest.mark.parametrize(
    ("dialect", "message", "more", "certain"),
    [
        (CHAT, {"role": "user", "content": "hi"}, {}, True),
        (CHAT, user(IMAGES[CHAT](PICTURE)), {}, False),
        (RESPONSES, {"type": "item_reference", "id": "x"}, {}, False),
        (RESPONSES, {"role": "user", "content": "hi"}, {"conversation": "c"}, False),
        (RESPONSES, {"type": "compaction", "encrypted_content": "abc"}, {}, False),
        (CHAT, {"role": "user", "content": "hi"}, {"tools": None, "web_search_options": None}, True),
        (
            CHAT,
            {"role": "user", "content": "hi"},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            True,
        ),
        (CHAT, {"role": "user", "content": "hi"}, {"web_search_options": {}}, False),
        (RESPONSES, {"role": "user", "content": "hi"}, {"tools": [{"type": "web_search"}]}, False),
        (MESSAGES, user({"type": "text", "text": "hi"}), {"tools": [{"name": "f"}]}, True),
        (MESSAGES, user(), {"tools": [{"name": "f"}, {"type": "web_search_20250305", "name": "s"}]}, False),
        (
            MESSAGES,
            user(),
            {"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]},
            False,
        ),
    ],
)
async def test_only_what_is_counted_to_the_last_part_is_exact(
    dialect: str, message: Any, more: dict[str, Any], certain: bool
) -> None:
    spoken = DIALECTS[dialect]
    request = spoken.parse(body(dialect, message, **more))
    reader = Reader(Addresser(1, b"s" * 32), TEXTS)
    for _ in range(2):
        assert (await reader.read(request, spoken, count=True)).exact is certain
    assert not (await reader.read(request, spoken, count=False)).exact
