"""Thinking and sampling of a prompt as each Anthropic model takes them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.chat.events import ANTHROPIC_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    CallPart,
    Choose,
    Effort,
    Message,
    ResultPart,
    Thinking,
    ThoughtPart,
    ToolChoice,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.anthropic_messages.prompt_models import Reasons, takes
from tests.unit.messages_writing import (
    ADAPTIVE,
    ASK,
    BUDGETED,
    NEW,
    OLD,
    READ,
    assistant,
    content,
    text,
    user,
    write,
)


@pytest.mark.parametrize(
    ("model", "reasons", "unasked", "always", "sampling", "schemas"),
    [
        ("claude-2.1", Reasons.NEVER, False, False, True, False),
        ("claude-instant-v1", Reasons.NEVER, False, False, True, False),
        ("claude-3-5-haiku-20241022", Reasons.NEVER, False, False, True, False),
        ("claude-3-7-sonnet-20250219", Reasons.BY_BUDGET, False, False, True, False),
        ("claude-sonnet-4-20250514", Reasons.BY_BUDGET, False, False, True, False),
        ("claude-opus-4-1", Reasons.BY_BUDGET, False, False, True, True),
        ("claude-opus-4-5-20251101", Reasons.BY_BUDGET, False, False, True, True),
        ("claude-sonnet-4-6", Reasons.ADAPTIVELY, False, False, True, True),
        ("us.anthropic.claude-opus-4-6-v1:0", Reasons.ADAPTIVELY, False, False, True, True),
        ("anthropic/claude-4.7-opus", Reasons.ADAPTIVELY, False, False, False, True),
        ("claude-sonnet-5", Reasons.ADAPTIVELY, True, False, False, True),
        ("claude-haiku-5-5", Reasons.ADAPTIVELY, True, False, False, True),
        ("claude-opus-5-5", Reasons.ADAPTIVELY, True, True, False, True),
        ("claude-fable-5", Reasons.ADAPTIVELY, True, True, False, True),
        ("claude-mythos-preview", Reasons.ADAPTIVELY, True, True, False, True),
        ("kimi-k2-thinking", Reasons.BY_BUDGET, False, False, True, True),
    ],
)
def test_what_models_take(
    model: str, reasons: Reasons, unasked: bool, always: bool, sampling: bool, schemas: bool
) -> None:
    it = takes(model)
    assert (it.reasons, it.unasked, it.always) == (reasons, unasked, always)
    assert (it.sampling, it.schemas) == (sampling, schemas)


ADAPT = {"type": "adaptive", "display": "summarized"}
FORCED = ToolChoice(mode=Choose.REQUIRED)


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort", "dropped"),
    [
        (ADAPTIVE, {"thinking": None}, None, None, ()),
        (ADAPTIVE, {"thinking": Thinking(summary="auto")}, None, None, ()),
        (OLD, {"thinking": Thinking(effort=Effort.HIGH)}, None, None, ("reasoning_effort",)),
        (OLD, {"thinking": Thinking(effort=Effort.NONE)}, None, None, ()),
        # a budget
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.MEDIUM), "max_output": 64_000},
            {"type": "enabled", "budget_tokens": 8_192},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.HIGH)},
            {"type": "enabled", "budget_tokens": 3_072},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(enabled=True, budget=50_000, summary="omitted")},
            {"type": "enabled", "budget_tokens": 4_095, "display": "omitted"},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "max_output": 1_025},
            {"type": "enabled", "budget_tokens": 1_024},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "max_output": 1_024},
            None,
            None,
            ("reasoning_effort",),
        ),
        (BUDGETED, {"thinking": Thinking(enabled=False)}, None, None, ()),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "tools": (READ,), "tool_choice": FORCED},
            None,
            None,
            ("thinking",),
        ),
        # adaptive
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.MINIMAL)}, ADAPT, "low", ()),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.XHIGH)}, ADAPT, "high", ()),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.MAX), "max_output": 100}, ADAPT, "max", ()),
        (ADAPTIVE, {"thinking": Thinking(enabled=True, budget=16_384)}, ADAPT, "high", ()),
        (ADAPTIVE, {"thinking": Thinking(enabled=True, adaptive=True)}, ADAPT, None, ()),
        (
            NEW,
            {"thinking": Thinking(effort=Effort.XHIGH, summary="omitted")},
            {"type": "adaptive", "display": "omitted"},
            "xhigh",
            (),
        ),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.NONE)}, None, None, ()),
        (NEW, {"thinking": Thinking(effort=Effort.NONE)}, {"type": "disabled"}, None, ()),
        (NEW, {"thinking": Thinking(enabled=False, effort=Effort.LOW)}, {"type": "disabled"}, "low", ()),
        ("claude-fable-5", {"thinking": Thinking(enabled=False)}, None, None, ("thinking",)),
        (
            "claude-fable-5",
            {"thinking": Thinking(effort=Effort.NONE)},
            None,
            None,
            ("reasoning_effort",),
        ),
        (
            ADAPTIVE,
            {"thinking": Thinking(effort=Effort.LOW), "tools": (READ,), "tool_choice": FORCED},
            None,
            "low",
            ("thinking",),
        ),
        (NEW, {"thinking": None, "tools": (READ,), "tool_choice": FORCED}, {"type": "disabled"}, None, ()),
    ],
)
def test_thinking(
    model: str, fields: dict[str, Any], thinking: object, effort: str | None, dropped: tuple[str, ...]
) -> None:
    body, left_out = write(model=model, **fields)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert left_out == dropped


def native(words: str) -> ThoughtPart:
    part = ReasoningPart(kind=ReasoningKind.RAW, text=words, signature="EqoB", format=ANTHROPIC_FORMAT)
    return ThoughtPart(thought=part)


REDACTED = ThoughtPart(
    thought=ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT)
)
FOREIGN = ThoughtPart(
    thought=ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_1", format=RESPONSES_FORMAT)
)
CALL = CallPart(id="c1", name="read", arguments="{}")
RESULT = user(ResultPart(call_id="c1"))


def test_signed_thinking_goes_back_as_it_was() -> None:
    said = content(ASK, assistant(native("Hm."), REDACTED, CALL), RESULT)[1][1]
    assert said[:2] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"},
        {"type": "redacted_thinking", "data": "Emw"},
    ]


def test_what_another_vendor_sealed_is_left_out_and_named_once() -> None:
    plain = ThoughtPart(thought=ReasoningPart(kind=ReasoningKind.RAW, text="Hm."))
    body, dropped = write(ASK, assistant(plain, FOREIGN, text("a")), user(text("b")))
    assert [b["type"] for b in body["messages"][1]["content"]] == ["text"]
    assert dropped == ("reasoning",)


@pytest.mark.parametrize(
    ("model", "messages", "thinks"),
    [
        (BUDGETED, (ASK, assistant(native("Hm."), CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(REDACTED, CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(CALL), RESULT), False),
        (ADAPTIVE, (ASK, assistant(CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(native("Hm."), CALL), RESULT, assistant(CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(CALL), RESULT, assistant(native("Hm."), CALL), RESULT), False),
        (BUDGETED, (ASK, assistant(CALL), RESULT, assistant(text("ok")), user(text("next"))), True),
        (
            BUDGETED,
            (ASK, assistant(CALL), user(*RESULT.parts, text("go on")), assistant(native("x"), CALL), RESULT),
            True,
        ),
    ],
)
def test_thinking_in_an_open_turn(model: str, messages: tuple[Message, ...], thinks: bool) -> None:
    body, dropped = write(*messages, model=model, thinking=Thinking(effort=Effort.LOW), tools=(READ,))
    assert ("thinking" in body, "thinking" in dropped) == (thinks, not thinks)


@pytest.mark.parametrize(
    ("model", "fields", "kept", "dropped"),
    [
        (BUDGETED, {"temperature": 1.5}, {"temperature": 1.0}, {"temperature"}),
        (BUDGETED, {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2}, {"top_p"}),
        (OLD, {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2, "top_p": 0.9}, set[str]()),
        (NEW, {"temperature": 0.2, "top_p": 0.9, "top_k": 3}, {}, {"temperature", "top_p", "top_k"}),
        (NEW, {"temperature": 1}, {}, set[str]()),
        (
            BUDGETED,
            {"temperature": 0.2, "top_k": 3, "top_p": 0.5, "thinking": Thinking(effort=Effort.LOW)},
            {},
            {"temperature", "top_k", "top_p"},
        ),
        (
            BUDGETED,
            {"top_p": 0.97, "thinking": Thinking(effort=Effort.LOW)},
            {"top_p": 0.97},
            set[str](),
        ),
    ],
)
def test_sampling(model: str, fields: dict[str, Any], kept: dict[str, float], dropped: set[str]) -> None:
    body, left_out = write(model=model, **fields)
    assert {key: body[key] for key in ("temperature", "top_p", "top_k") if key in body} == kept
    assert set(left_out) == dropped
