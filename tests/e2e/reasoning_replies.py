"""Replies that reason, as each vendor's server writes them: whole, and as the frames of a stream.

The shapes are those of the vendors' SDK types and documentation (2026-11).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

CHAT, RESPONSES, MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"
_USAGE = {"prompt_tokens": 10, "completion_tokens": 90, "total_tokens": 100}


@dataclass(frozen=True)
class Case:
    """`parts`: kind, text, and signature where there is one. `message`: what a client sends back."""

    name: str
    dialect: str
    whole: bytes
    stream: bytes
    parts: list[tuple[str, ...]]
    message: list[dict[str, Any]]
    text: str = "It is four."
    withheld: bool = False
    signatures: list[str] = field(default_factory=list[str])
    """Thought signatures of its tool calls."""

    @property
    def words(self) -> str:
        """What can be read of the reasoning."""
        return "".join(part[1] for part in self.parts if part[0] not in ("encrypted", "redacted"))


def chat(
    name: str,
    message: dict[str, Any],
    deltas: list[dict[str, Any]],
    parts: list[tuple[str, ...]],
    *,
    reasoning: int = 0,
    **more: Any,
) -> Case:
    usage = _USAGE | ({"completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else {})
    finish = "tool_calls" if "tool_calls" in message else "stop"
    message = {"role": "assistant", "content": None} | message
    body = {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1,
        "model": "vendor-1",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage,
    }
    chunk: dict[str, Any] = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "vendor-1",
    }
    steps: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant"}, None)]
    steps += [(delta, None) for delta in deltas]
    steps.append(({}, finish))
    chunks = [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in steps
    ]
    chunks.append(chunk | {"choices": [], "usage": usage})
    stream = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"
    return Case(name, CHAT, json.dumps(body).encode(), stream.encode(), parts, [message], **more)


def _events(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()


def _text(*pieces: str) -> list[dict[str, Any]]:
    return [{"content": piece} for piece in pieces]


_FOUR = _text("It is", " four.")
_DETAILS = [
    {
        "type": "reasoning.text",
        "text": "Two plus two.",
        "signature": "EqoBc2ln",
        "format": "anthropic-claude-v1",
        "index": 0,
    },
    {"type": "reasoning.summary", "summary": "A sum.", "format": "openai-responses-v1", "index": 1},
    {"type": "reasoning.encrypted", "data": "gAAAAAopen", "format": "openai-responses-v1", "index": 1},
]
_DETAIL_PARTS = [("raw", "Two plus two.", "EqoBc2ln"), ("summary", "A sum."), ("encrypted", "gAAAAAopen")]


def _detail(**more: Any) -> dict[str, Any]:
    return {"reasoning_details": [more]}


OPENROUTER = chat(
    "openrouter",
    {"content": "It is four.", "reasoning": "Two plus two.A sum.", "reasoning_details": _DETAILS},
    [
        {"reasoning": "Two "}
        | _detail(type="reasoning.text", text="Two ", format="anthropic-claude-v1", index=0),
        {"reasoning": "plus two."}
        | _detail(type="reasoning.text", text="plus two.", format="anthropic-claude-v1", index=0),
        _detail(type="reasoning.text", signature="EqoBc2ln", format="anthropic-claude-v1", index=0),
        {"reasoning": "A sum."} | {"reasoning_details": _DETAILS[1:2]},
        {"reasoning_details": _DETAILS[2:]},
        *_FOUR,
    ],
    _DETAIL_PARTS,
    reasoning=64,
)
_CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}}
_SIGNED = {"extra_content": {"google": {"thought_signature": "CvcBAVSo"}}}
GEMINI = chat(
    "gemini",
    {"content": "<thought>Two plus two.</thought>It is four.", "tool_calls": [_CALL | _SIGNED]},
    [
        *_text("<thou", "ght>Two plus", " two.</th", "ought>It is", " four."),
        {"tool_calls": [_CALL | _SIGNED | {"index": 0}]},
    ],
    [("inline_tag", "Two plus two.")],
    signatures=["CvcBAVSo"],
)
_MISTRAL = {"type": "thinking", "thinking": [{"type": "text", "text": "Two plus two."}], "closed": True}

CHATS = [
    chat("openai", {"content": "It is four."}, _FOUR, [], reasoning=64, withheld=True),
    chat(
        "deepseek",
        {"content": "It is four.", "reasoning_content": "Two plus two."},
        [{"reasoning_content": "Two plus"}, {"reasoning_content": " two."}, *_FOUR],
        [("raw", "Two plus two.")],
        reasoning=4,
    ),
    chat(
        "vllm",
        {"content": "It is four.", "reasoning": "Two plus two.", "reasoning_content": "Two plus two."},
        [{"reasoning": "Two plus", "reasoning_content": "Two plus"}, {"reasoning": " two."}, *_FOUR],
        [("raw", "Two plus two.")],
    ),
    OPENROUTER,
    GEMINI,
    chat(
        "qwen",
        {"content": "<think>\nTwo plus two.\n</think>\n\nIt is four."},
        _text("<", "think", ">\nTwo plus", " two.\n<", "/think", ">", "\n\nIt is", " four."),
        [("inline_tag", "Two plus two.")],
    ),
    chat(
        "prefilled",
        {"content": "Two plus two.\n</think>\n\nIt is four."},
        _text("Two plus", " two.\n</thi", "nk>\n\nIt is", " four."),
        [("inline_tag", "Two plus two.")],
    ),
    chat(
        "groq",
        {"content": "It is four.", "reasoning": "Two plus two."},
        [{"reasoning": "Two plus", "channel": "analysis"}, {"reasoning": " two."}, *_FOUR],
        [("raw", "Two plus two.")],
    ),
    chat(
        "xai",
        {"content": "It is four.", "reasoning_content": "Two plus two.", "encrypted_content": "oR0aBcD="},
        [
            {"reasoning_content": "Two plus"},
            {"reasoning_content": " two."},
            {"encrypted_content": "oR0aBcD="},
            *_FOUR,
        ],
        [("raw", "Two plus two."), ("encrypted", "oR0aBcD=")],
        reasoning=9,
    ),
    chat(
        "mistral",
        {"content": [_MISTRAL, {"type": "text", "text": "It is four."}]},
        [
            {"content": [_MISTRAL | {"thinking": [{"type": "text", "text": "Two plus"}], "closed": False}]},
            {"content": [_MISTRAL | {"thinking": [{"type": "text", "text": " two."}]}]},
            *_FOUR,
        ],
        [("raw", "Two plus two.")],
    ),
    chat(
        "litellm",
        {
            "content": "It is four.",
            "reasoning_content": "Two plus two.",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Two plus two.", "signature": "EqoBc2ln"},
                {"type": "redacted_thinking", "data": "EmwKhidden"},
            ],
        },
        [
            {
                "reasoning_content": "Two plus",
                "thinking_blocks": [{"type": "thinking", "thinking": "Two plus"}],
            },
            {"reasoning_content": " two.", "thinking_blocks": [{"type": "thinking", "thinking": " two."}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "EqoBc2ln"}]},
            {"thinking_blocks": [{"type": "redacted_thinking", "data": "EmwKhidden"}]},
            *_FOUR,
        ],
        [("raw", "Two plus two.", "EqoBc2ln"), ("redacted", "EmwKhidden")],
    ),
]


def _messages() -> Case:
    thinking = {"type": "thinking", "thinking": "Two plus two.", "signature": "EqoBc2ln"}
    hidden = {"type": "redacted_thinking", "data": "EmwKhidden"}
    text = {"type": "text", "text": "It is four."}
    usage = {"input_tokens": 10, "output_tokens": 90, "output_tokens_details": {"thinking_tokens": 64}}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "stop_sequence": None}
    body = head | {"content": [thinking, hidden, text], "stop_reason": "end_turn", "usage": usage}
    starts = head | {"content": [], "stop_reason": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    empty: list[dict[str, Any]] = [thinking | {"thinking": "", "signature": ""}, hidden, text | {"text": ""}]
    deltas: list[list[dict[str, Any]]] = [
        [
            {"type": "thinking_delta", "thinking": "Two plus"},
            {"type": "thinking_delta", "thinking": " two."},
            {"type": "signature_delta", "signature": "EqoBc2ln"},
        ],
        [],
        [{"type": "text_delta", "text": "It is four."}],
    ]
    events: list[dict[str, Any]] = [{"type": "message_start", "message": starts}, {"type": "ping"}]
    for index, (block, pieces) in enumerate(zip(empty, deltas, strict=True)):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": ended, "usage": usage}, {"type": "message_stop"}]
    parts: list[tuple[str, ...]] = [("raw", "Two plus two.", "EqoBc2ln"), ("redacted", "EmwKhidden")]
    sent_back = {"role": "assistant", "content": body["content"]}
    return Case("messages", MESSAGES, json.dumps(body).encode(), _events(events), parts, [sent_back])


def _responses() -> Case:
    usage = {
        "input_tokens": 10,
        "output_tokens": 90,
        "total_tokens": 100,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 64},
    }
    summary = [{"type": "summary_text", "text": "A sum."}]
    words = [{"type": "reasoning_text", "text": "Two plus two."}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": summary, "content": words}
    thought |= {"encrypted_content": "gAAAAAopen", "status": "completed"}
    said = {"type": "output_text", "text": "It is four.", "annotations": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [said],
    }
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-1", "status": "in_progress"}
    body = head | {"status": "completed", "output": [thought, message], "usage": usage}
    at = {"item_id": "rs_1", "output_index": 0}
    text_at = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    prefix = "response.reasoning_summary"
    blank = thought | {"summary": [], "content": [], "encrypted_content": "early", "status": "in_progress"}
    steps: list[dict[str, Any]] = [
        {"type": "response.created", "response": head | {"output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": blank},
        {"type": f"{prefix}_part.added", "summary_index": 0, "part": summary[0] | {"text": ""}} | at,
        {"type": f"{prefix}_text.delta", "summary_index": 0, "delta": "A "} | at,
        {"type": f"{prefix}_text.delta", "summary_index": 0, "delta": "sum."} | at,
        {"type": f"{prefix}_text.done", "summary_index": 0, "text": "A sum."} | at,
        {"type": f"{prefix}_part.done", "summary_index": 0, "part": summary[0]} | at,
        {"type": "response.reasoning_text.delta", "content_index": 0, "delta": "Two plus"} | at,
        {"type": "response.reasoning_text.delta", "content_index": 0, "delta": " two."} | at,
        {"type": "response.reasoning_text.done", "content_index": 0, "text": "Two plus two."} | at,
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": message | {"content": []}},
        {"type": "response.content_part.added", "part": said | {"text": ""}} | text_at,
        {"type": "response.output_text.delta", "delta": "It is four."} | text_at,
        {"type": "response.output_text.done", "text": "It is four."} | text_at,
        {"type": "response.content_part.done", "part": said} | text_at,
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.completed", "response": body},
    ]
    events = [step | {"sequence_number": n} for n, step in enumerate(steps)]
    parts: list[tuple[str, ...]] = [
        ("summary", "A sum."),
        ("raw", "Two plus two."),
        ("encrypted", "gAAAAAopen"),
    ]
    stream = _events(events)
    return Case("responses", RESPONSES, json.dumps(body).encode(), stream, parts, [thought, message])


CASES = [*CHATS, _messages(), _responses()]
