"""What servers tell of tokens beyond the usual counts, in every dialect, and of their service tier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.chat.events import Frame, Unreadable, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly
from llm_proxy.upstream.litellm_shapes import Incoming
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat.reply_parts import usage_of
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.sse import SseFrame

GOLDEN = Path(__file__).parents[1] / "golden"


def seen(frame: Frame) -> UsageSeen:
    (one,) = [event for event in frame.events if isinstance(event, UsageSeen)]
    return one


def chat(usage: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"id": "c", "model": "m", "choices": [], "usage": usage, **fields}).encode()


def responses(usage: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"id": "r", "status": "completed", "output": [], "usage": usage, **fields}).encode()


def message(usage: dict[str, Any]) -> bytes:
    return json.dumps({"type": "message", "id": "m", "content": [], "usage": usage}).encode()


def whole(dialect: Dialect, body: bytes) -> UsageSeen:
    return seen(dialect.read_body(body))


def frame(dialect: Dialect, data: bytes) -> UsageSeen:
    return seen(dialect.read_frame(SseFrame(b"data: " + data + b"\n\n", "", data, False)))


SOUND = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {
        "cached_tokens": 30,
        "audio_tokens": 40,
        "image_tokens": 5,
        "text_tokens": 55,
        "cached_tokens_details": {"audio_tokens": 20, "text_tokens": 10},
    },
    "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 20, "image_tokens": 3},
}
HEARD = Usage(
    input=100,
    output=50,
    cached=30,
    reasoning=7,
    audio_input=40,
    image_input=5,
    cached_audio=20,
    audio_output=20,
    image_output=3,
)


@pytest.mark.parametrize("dialect", [OPENAI_CHAT, OPENAI_COMPLETIONS])
def test_sound_and_pictures_whole_and_streamed(dialect: Dialect) -> None:
    body = chat(SOUND, service_tier="priority")
    assert whole(dialect, body) == UsageSeen(HEARD, tier="priority")
    assert frame(dialect, body) == UsageSeen(HEARD, only=True, tier="priority")


def test_responses() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": SOUND["prompt_tokens_details"],
        "output_tokens": 50,
        "output_tokens_details": SOUND["completion_tokens_details"],
        "total_tokens": 150,
    }
    body = responses(usage, service_tier="flex")
    assert whole(OPENAI_RESPONSES, body) == UsageSeen(HEARD, tier="flex")
    event = b'{"type":"response.completed","response":' + body + b"}"
    assert frame(OPENAI_RESPONSES, event) == UsageSeen(HEARD, tier="flex")


KEPT: dict[str, Any] = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 500,
    "cache_read_input_tokens": 90,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400},
    "output_tokens": 7,
    "service_tier": "batch",
}
WRITTEN = Usage(input=600, output=7, cached=90, cache_write=500, cache_write_hour=400)


def test_messages_whole() -> None:
    assert whole(ANTHROPIC_MESSAGES, message(KEPT)) == UsageSeen(WRITTEN, tier="batch")
    fast = whole(ANTHROPIC_MESSAGES, message({**KEPT, "service_tier": "standard", "speed": "fast"}))
    assert fast.tier == "fast"
    again = {"type": "compaction", **KEPT, "service_tier": None}
    twice = whole(ANTHROPIC_MESSAGES, message({**KEPT, "iterations": [again]})).usage
    assert (twice.cache_write, twice.cache_write_hour) == (1_000, 800)


def test_messages_streamed_keep_what_only_the_start_said() -> None:
    read, assembly = ANTHROPIC_MESSAGES.frame_reader(), Assembly()
    start: dict[str, Any] = {
        "type": "message_start",
        "message": {"id": "m", "usage": {**KEPT, "output_tokens": 1}},
    }
    end: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 7},
    }
    for event in (start, end, {"type": "message_stop"}):
        data = json.dumps(event).encode()
        for one in read(SseFrame(b"event: x\n\n", event["type"], data, False)).events:
            assembly.add(one)
    assert (assembly.usage, assembly.tier) == (WRITTEN, "batch")


def test_what_litellm_tells() -> None:
    usage = {
        "prompt_tokens": 600,
        "completion_tokens": 7,
        "total_tokens": 607,
        "prompt_tokens_details": {
            "cached_tokens": 90,
            "cache_creation_tokens": 500,
            "cache_creation_token_details": KEPT["cache_creation"],
        },
        "service_tier": "priority",
    }
    body = Incoming("").body({"id": "c", "model": "m", "choices": [], "usage": usage})
    assert whole(OPENAI_CHAT, body) == UsageSeen(WRITTEN, tier="priority")


ODD: list[Any] = ["7", -7, 7.5, True, None, [], {}, {"x": 1}, [1]]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_count_or_no_name_is_passed_over(odd: Any) -> None:
    details: dict[str, Any] = dict.fromkeys(("audio_tokens", "image_tokens", "cached_tokens_details"), odd)
    details["cache_creation_token_details"] = odd
    told: dict[str, Any] = {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4, **details},
        "completion_tokens_details": {"audio_tokens": odd, "image_tokens": odd},
    }
    word = odd if isinstance(odd, str) else ""
    expected = UsageSeen(Usage(input=9, output=3, cached=4), tier=word)
    for dialect in (OPENAI_CHAT, OPENAI_COMPLETIONS):
        assert whole(dialect, chat(told, service_tier=odd)) == expected
    usage = {**KEPT, "cache_creation": odd, "service_tier": odd, "speed": odd}
    said = whole(ANTHROPIC_MESSAGES, message(usage))
    assert said == UsageSeen(Usage(input=600, output=7, cached=90, cache_write=500), tier=word)
    answer = responses({"input_tokens": 9, "output_tokens": 3}, service_tier=odd)
    assert whole(OPENAI_RESPONSES, answer) == UsageSeen(Usage(input=9, output=3), tier=word)


def test_zero_is_told() -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {"audio_tokens": 0}}
    assert whole(OPENAI_CHAT, chat(nothing)) == UsageSeen(Usage())


def test_chat_says_it_again() -> None:
    said = usage_of(HEARD)
    again = whole(OPENAI_CHAT, chat(said)).usage
    assert (again.audio_input, again.audio_output) == (40, 20)


@pytest.mark.parametrize(
    ("file", "dialect", "tier"),
    [
        ("openai_chat/openai.json", OPENAI_CHAT, "default"),
        ("openai_chat/xai.json", OPENAI_CHAT, ""),
        ("openai_completions/vllm.json", OPENAI_COMPLETIONS, ""),
        ("openai_responses/calls.json", OPENAI_RESPONSES, "default"),
        ("anthropic_messages/text.json", ANTHROPIC_MESSAGES, "standard"),
    ],
)
def test_recorded_replies(file: str, dialect: Dialect, tier: str) -> None:
    read = dialect.read_body((GOLDEN / file).read_bytes())
    assert not any(isinstance(event, Unreadable) for event in read.events)
    assert seen(read).tier == tier
