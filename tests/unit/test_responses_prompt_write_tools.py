"""Tools as a Responses request has them, and the choice among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import Choose, Tool, ToolChoice
from tests.unit.responses_writing import RAW_SCHEMA, SCHEMA, prompt, written


class TestTools:
    def test_strict_is_always_said(self) -> None:
        tools = written(
            prompt(
                tools=(
                    Tool(name="a", parameters=RAW_SCHEMA, description="A."),
                    Tool(name="b", parameters=RAW_SCHEMA, strict=True),
                    Tool(name="c"),
                )
            )
        )["tools"]
        assert tools == [
            {"type": "function", "name": "a", "strict": False, "parameters": SCHEMA, "description": "A."},
            {"type": "function", "name": "b", "strict": True, "parameters": SCHEMA},
            {"type": "function", "name": "c", "strict": False, "parameters": None},
        ]

    def test_freeform(self) -> None:
        grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
        tools = (
            Tool(name="p", custom=True, description="P.", grammar=json.dumps(grammar).encode()),
            Tool(name="q", custom=True),
        )
        assert written(prompt(tools=tools))["tools"] == [
            {"type": "custom", "name": "p", "description": "P.", "format": grammar},
            {"type": "custom", "name": "q"},
        ]

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (ToolChoice(mode=Choose.AUTO), "auto"),
            (ToolChoice(mode=Choose.NONE), "none"),
            (ToolChoice(mode=Choose.REQUIRED), "required"),
            (ToolChoice(mode=Choose.TOOL, name="f"), {"type": "function", "name": "f"}),
            (ToolChoice(mode=Choose.TOOL, name="p"), {"type": "custom", "name": "p"}),
            (
                ToolChoice(mode=Choose.REQUIRED, allowed=("f", "p")),
                {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "p"}],
                },
            ),
        ],
    )
    def test_choices(self, choice: ToolChoice, expected: Any) -> None:
        tools = (Tool(name="f"), Tool(name="p", custom=True))
        assert written(prompt(tools=tools, tool_choice=choice))["tool_choice"] == expected
