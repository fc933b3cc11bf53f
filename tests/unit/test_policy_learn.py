"""What is proposed for a tool: the shape of its arguments, or what was declared where that fits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.policy.declared import declarations
from llm_proxy.policy.learn import Learning
from llm_proxy.policy.load import load_policy, read_policy
from llm_proxy.policy.proposal import proposal
from llm_proxy.policy.shape import Shape
from llm_proxy.policy.told_cases import told_cases


def schema(*seen: Any) -> Any:
    shape = Shape()
    for value in seen:
        shape.add(value)
    return shape.schema()


def args_of(learning: Learning, tool: str) -> Any:
    return read_policy(proposal(learning, "x").encode(), "p.yaml").tools[tool].spec.args


def seen(**calls: Any) -> Learning:
    learning = Learning()
    for tool, each in calls.items():
        for args in each:
            learning.called(tool, json.dumps(args), "bot", "r")
    return learning


def test_shapes() -> None:
    assert schema({"id": "abc", "n": 3, "note": "x" * 40}, {"id": "de", "n": 70}) == {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "n"],
        "properties": {
            "id": {"type": "string", "maxLength": 32},
            "n": {"type": "integer", "minimum": 0, "maximum": 100},
            "note": {"type": "string", "maxLength": 128},
        },
    }
    assert schema(1, 2.5)["type"] == "number"
    assert schema(True, None) == {"type": ["boolean", "null"]}
    assert schema(-5)["minimum"] == -10
    assert schema(["a"] * 9) == {
        "type": "array",
        "maxItems": 32,
        "items": {"type": "string", "maxLength": 32},
    }
    assert schema([]) == {"type": "array", "maxItems": 8, "items": {}}
    assert "maximum" not in schema(10**17)


def test_keys_that_are_data_are_no_properties() -> None:
    assert schema({"ann@example.com": 1}, {"id": 2})["additionalProperties"]["type"] == "integer"
    many = {f"u{n}": 1 for n in range(60)}
    assert "properties" not in schema(many)
    assert "u7" not in json.dumps(schema(many))


def test_a_declaration_is_taken_where_it_fits() -> None:
    parameters: Any = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where", "default": "Bonn"},
            "unit": {"enum": ["c", "f"]},
            "description": {"type": "string"},
        },
        "required": ["city"],
    }
    learning = seen(weather=[{"city": "Rome"}, {"city": "Oslo", "unit": "c"}])
    [one] = declarations([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
    learning.declared(one._replace(description="Tells the\nweather. # not: yaml"))
    assert args_of(learning, "weather") == {
        "type": "object",
        "additionalProperties": False,
        "required": ["city"],
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["c", "f"]},
            "description": {"type": "string"},
        },
    }
    assert "# Declared as: Tells the weather. # not: yaml" in proposal(learning, "x")


def test_a_declaration_that_does_not_fit_is_not() -> None:
    learning = seen(weather=[{"town": "Rome"}])
    declared: list[Any] = [{"type": "object", "properties": {"city": {}}}, {"$ref": "https://example.com/x"}]
    for schema_ in declared:
        [one] = declarations([{"name": "weather", "input_schema": schema_}])
        learning.declared(one)
        assert list(args_of(learning, "weather")["properties"]) == ["town"]


def test_declarations_of_every_dialect() -> None:
    of = {"type": "object", "properties": {}}
    tools: Any = [
        {"type": "function", "function": {"name": "chat", "description": "d", "parameters": of}},
        {"type": "function", "name": "responses", "parameters": of},
        {"name": "messages", "input_schema": of},
        {
            "type": "namespace",
            "name": "crm",
            "tools": [{"type": "function", "name": "get", "parameters": of}],
        },
        {"type": "web_search"},
        {"type": "custom", "name": "scratch"},
        "nonsense",
    ]
    assert [one.name for one in declarations(tools)] == ["chat", "responses", "messages", "crm__get"]
    assert list(declarations({"tools": 1})) == []


def test_names_and_arguments_that_no_policy_can_hold() -> None:
    learning = seen(ok=[{}])
    learning.called("bad\x07name", "{}", "bot", "r")
    learning.called("ok", '{"a": 1, "a": 2}', "bot", "r")
    text = proposal(learning, "x")
    assert (learning.left_out, list(learning.tools)) == (1, ["ok"])
    assert "# 2 calls in 1 run, by bot. Of 1 of them the arguments can't be read." in text


def test_cases_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "policy: {id: p, version: 1}\n"
        "tools: {read: {effect: read, tier: autonomous, result: {}}}\n"
        "rules:\n"
        "  - {id: hit, then: deny, when: run.untrusted}\n"
        "  - {id: missed, then: deny, when: run.depth > 5}\n"
        "sequence:\n"
        "  - {id: twice, after: {tool: read}, forbid: {tool: read}}\n"
        "tests:\n"
        "  - {name: one, run: {untrusted: true}, call: {tool: read}, expect: {decision: deny, rule: hit}}\n"
        "  - {name: two, call: {tool: read}, expect: {decision: ask}}\n"
    )
    found = told_cases(load_policy(path), path)
    assert [(one.name, one.line, one.passed) for one in found.cases] == [("one", 9, True), ("two", 10, False)]
    assert found.cases[1].got == "allow by tier:autonomous"
    assert [(one.rule, one.line) for one in found.never_hit] == [("missed", 5), ("twice", 7)]
    assert not found.passed


def test_a_file_needs_no_config(tmp_path: Path) -> None:
    starter = Path(__file__).parents[2] / "llm_proxy" / "config" / "starter" / "policy.yaml"
    shutil.copy(starter, tmp_path / "p.yaml")
    result = CliRunner().invoke(app, ["policy", "test", str(tmp_path / "p.yaml")])
    assert (result.exit_code, result.stderr) == (0, "")
