"""The tools of a Responses request, and the choice among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import Choose, Tool, ToolChoice
from tests.unit.responses_reading import CRM, GRAMMAR, PATCH, SCHEMA, WEATHER, read


class TestTools:
    def test_functions_freeform_tools_and_namespaces(self) -> None:
        prompt = read(tools=[WEATHER, PATCH, CRM])
        schema = json.dumps(SCHEMA).encode()
        assert prompt.tools == (
            Tool(name="get_weather", parameters=schema, strict=True),
            Tool(
                name="apply_patch",
                description="Edits files.",
                custom=True,
                grammar=json.dumps(GRAMMAR).encode(),
            ),
            Tool(name="crm__get_customer", description="One.", parameters=schema),
            Tool(name="crm__query", custom=True, grammar=b'{"type": "text"}'),
        )
        assert prompt.dropped == ()

    def test_a_long_flat_name_is_fitted(self) -> None:
        member = {"type": "function", "name": "n" * 50}
        [tool] = read(tools=[{"type": "namespace", "name": "s" * 30, "tools": [member]}]).tools
        assert len(tool.name) == 64

    def test_what_only_the_vendor_runs_is_left_out_and_named(self) -> None:
        prompt = read(
            tools=[
                {"type": "web_search", "filters": {"allowed_domains": ["x.org"]}},
                WEATHER,
                {"type": "mcp", "server_label": "s", "server_url": "https://s"},
                {"type": "code_interpreter", "container": {"type": "auto"}},
                {**CRM, "tools": [{"type": "image_generation"}]},
            ]
        )
        assert [tool.name for tool in prompt.tools] == ["get_weather"]
        assert prompt.dropped == (
            "tools[0] (web_search)",
            "tools[2] (mcp)",
            "tools[3] (code_interpreter)",
            "tools[4].tools[0] (image_generation)",
        )

    def test_hints_of_a_tool_are_named_once(self) -> None:
        late = {**WEATHER, "defer_loading": True, "allowed_callers": None}
        assert read(tools=[late, {**late, "name": "b"}]).dropped == ("tools.defer_loading",)

    def test_tools_declared_in_the_middle(self) -> None:
        prompt = read(
            input=[
                {"role": "user", "content": "Hi"},
                {"type": "additional_tools", "role": "developer", "tools": [WEATHER, {"type": "shell"}]},
            ]
        )
        assert [tool.name for tool in prompt.tools] == ["get_weather"]
        assert prompt.dropped == ("input[1].tools[1] (shell)",)

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (None, None),
            ("auto", ToolChoice(mode=Choose.AUTO)),
            ("none", ToolChoice(mode=Choose.NONE)),
            ("required", ToolChoice(mode=Choose.REQUIRED)),
            (
                {"type": "function", "name": "get_weather"},
                ToolChoice(mode=Choose.TOOL, name="get_weather"),
            ),
            ({"type": "custom", "name": "apply_patch"}, ToolChoice(mode=Choose.TOOL, name="apply_patch")),
            (
                {"type": "function", "name": "crm.get_customer"},
                ToolChoice(mode=Choose.TOOL, name="crm__get_customer"),
            ),
            (
                {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [
                        {"type": "function", "name": "get_weather"},
                        {"type": "namespace", "name": "crm"},
                    ],
                },
                ToolChoice(mode=Choose.REQUIRED, allowed=("get_weather", "crm__get_customer", "crm__query")),
            ),
        ],
    )
    def test_choices(self, choice: Any, expected: ToolChoice | None) -> None:
        assert read(tools=[WEATHER, PATCH, CRM], tool_choice=choice).tool_choice == expected

    def test_a_choice_without_its_tools_is_no_choice(self) -> None:
        prompt = read(tools=[{"type": "web_search"}], tool_choice="auto")
        assert (prompt.tools, prompt.tool_choice) == ((), None)

    def test_a_vendors_tool_among_the_allowed_is_named(self) -> None:
        allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}
        prompt = read(tools=[WEATHER, {"type": "web_search"}], tool_choice=allowed)
        assert prompt.tool_choice == ToolChoice(mode=Choose.NONE)
        assert prompt.dropped == ("tools[1] (web_search)", "tool_choice.tools")
