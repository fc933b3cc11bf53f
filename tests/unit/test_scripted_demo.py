"""The demo's script tells its story to the end, with and without a refusal on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.scripted.__main__ import DEMO
from llm_proxy.scripted.model import ScriptedModel, parse_request
from llm_proxy.scripted.script import load_script


def tell(denied: frozenset[str]) -> list[dict[str, Any]]:
    """Runs a tool loop against the script; a denied call becomes assistant text, as a gate replaces it."""
    model = ScriptedModel(load_script(DEMO))
    messages: list[dict[str, Any]] = [{"role": "user", "content": "My coffee machine came broken."}]
    replies: list[dict[str, Any]] = []
    for _ in range(8):
        body = json.dumps({"model": "support", "messages": messages}).encode()
        message = json.loads(model.answer(parse_request(body)).body)["choices"][0]["message"]
        replies.append(message)
        calls = [c for c in message.get("tool_calls", []) if c["function"]["name"] not in denied]
        if not calls:
            return replies
        messages.append({"role": "assistant", "content": "NOT EXECUTED", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": '{"refunded": 1}'} for c in calls]
    raise AssertionError("the story does not end")


def tools(reply: dict[str, Any]) -> list[str]:
    return [call["function"]["name"] for call in reply.get("tool_calls", [])]


def test_the_agent_is_denied_and_recovers() -> None:
    replies = tell(frozenset({"refund_create"}))
    assert [tools(r) for r in replies] == [
        ["crm_read"],
        ["kb_search", "refund_create"],
        ["ticket_note"],
        [],
    ]
    assert all(r["reasoning_content"] for r in replies)
    assert "approve" in replies[-1]["content"]


def test_with_nothing_in_its_way_it_says_that_the_refund_was_made() -> None:
    replies = tell(frozenset())
    assert [tools(r) for r in replies] == [["crm_read"], ["kb_search", "refund_create"], []]
    assert "on its way" in replies[-1]["content"]


@pytest.mark.parametrize("turn", [4, 9])
def test_it_has_something_to_say_after_its_story(turn: int) -> None:
    messages = [{"role": "assistant", "content": "x"}] * turn
    body = json.dumps({"model": "any", "messages": messages}).encode()
    assert ScriptedModel(load_script(DEMO)).answer(parse_request(body)).status == 200
