"""Tools, their choice and JSON output of a prompt in an Anthropic Messages request."""

from __future__ import annotations

import pytest

from llm_proxy.chat.prompt import Choose, OutputFormat, Tool, ToolChoice
from tests.unit.messages_writing import NEW, OLD, READ, SCHEMA, text, write

FREEFORM = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("tool", "schema", "dropped"),
    [
        (Tool(name="t"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b"{}"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b"[]"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b'{"properties":{}}'), {"properties": {}, "type": "object"}, ()),
        (Tool(name="t", custom=True, grammar=b'{"type":"grammar"}'), FREEFORM, ("tools.format",)),
    ],
)
def test_every_tool_has_a_schema(tool: Tool, schema: object, dropped: tuple[str, ...]) -> None:
    body, left_out = write(tools=(tool,))
    assert (body["tools"], left_out) == ([{"name": "t", "input_schema": schema}], dropped)


@pytest.mark.parametrize(("model", "count"), [(OLD, 1), (NEW, 21)])
def test_strict_tools_where_they_are_taken(model: str, count: int) -> None:
    tools = tuple(Tool(name=f"t{i}", strict=True) for i in range(count))
    body, dropped = write(model=model, tools=tools)
    assert dropped == ("tools.strict",)
    assert all("strict" not in tool for tool in body["tools"])


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(mode=Choose.NONE), False, {"type": "none"}),
        (ToolChoice(mode=Choose.REQUIRED), None, {"type": "any"}),
        (
            ToolChoice(mode=Choose.TOOL, name="read"),
            False,
            {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, written: object) -> None:
    body, _ = write(tools=(READ,), tool_choice=choice, parallel_calls=parallel)
    assert body.get("tool_choice") == written


def test_only_allowed_tools_are_declared() -> None:
    choice = ToolChoice(mode=Choose.REQUIRED, allowed=("b",))
    body, _ = write(tools=(Tool(name="a"), Tool(name="b")), tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == ["b"]


def test_a_choice_without_tools_goes() -> None:
    assert "tool_choice" not in write(tool_choice=ToolChoice(mode=Choose.NONE))[0]


@pytest.mark.parametrize(
    ("model", "output", "words"),
    [
        (NEW, OutputFormat(), "one JSON object"),
        (OLD, OutputFormat(schema=SCHEMA), SCHEMA.decode()),
    ],
)
def test_json_that_is_asked_for_in_words(model: str, output: OutputFormat, words: str) -> None:
    body, dropped = write(model=model, output=output, system=(text("Be brief."),))
    assert body["system"].startswith("Be brief.\n\n")
    assert words in body["system"]
    assert ("output_config" in body, dropped) == (False, ("response_format",))
