"""Scripts: what is taken, and what a refusal says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from llm_proxy.scripted.model import ScriptedModel, parse_request
from llm_proxy.scripted.script import (
    ErrorScript,
    ScriptError,
    ToolCallScript,
    Turn,
    UsageScript,
    When,
    load_script,
    parse_script,
)


def test_a_small_script() -> None:
    script = parse_script("models: {m: {turns: [{text: hello, usage: none}]}}")
    turn = script.models["m"].turns[0]
    assert (turn.text, turn.usage) == ("hello", "none")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the whole"),
        ("{}", "no models"),
        ("default: {turns: []}", r"default\.turns"),
        ("default: {turns: [{txet: hello}]}", r"default\.turns\.0\.txet"),
        ("default: {turns: [{status: 200}]}", r"turns\.0\.status"),
        ("default: {turns: [{when: {trun: 1}}]}", r"when\.trun"),
        ("default: {turns: [{cut_after: 1, truncate: true}]}", "cut_after and truncate exclude each other"),
        ("default: {turns: [{latency_s: -1}]}", "latency_s"),
        ("default: {turns: [{text: 1}]}", r"default\.turns\.0\.text: [^;]*$"),
        ("default: [", "not YAML"),
    ],
)
def test_a_refusal_names_the_file_and_the_field(text: str, says: str) -> None:
    with pytest.raises(ScriptError, match=rf"^small\.yaml: .*{says}"):
        parse_script(text, "small.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"gone\.yaml: can't be read"):
        load_script(tmp_path / "gone.yaml")


DOCS = (Path(__file__).parents[2] / "docs" / "scripted.md").read_text()


def test_the_documented_example_plays() -> None:
    [example] = [part for part in DOCS.split("```")[1::2] if part.startswith("yaml\nmodels:")]
    model = ScriptedModel(parse_script(example.removeprefix("yaml\n")))
    messages = [{"role": "user", "content": "I want a refund"}]
    body = json.dumps({"model": "support", "messages": messages}).encode()
    assert b"crm_read" in model.answer(parse_request(body)).body
    flaky = parse_request(b'{"model":"flaky","messages":[]}')
    assert [model.answer(flaky).status for _ in range(3)] == [429, 429, 200]


@pytest.mark.parametrize("part", [Turn, When, UsageScript, ErrorScript, ToolCallScript])
def test_every_field_is_documented(part: type[BaseModel]) -> None:
    for field in part.model_fields:
        assert re.search(rf"`[^`]*\b{field}\b[^`]*`", DOCS), f"docs/scripted.md does not name {field}"
