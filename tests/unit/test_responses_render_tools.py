"""Calls in a Responses reply: freeform tools and namespaces again."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.chat.events import CallDelta, Finished
from tests.unit.responses_rendering import START, STEM, about, replies, stream

PATCH = {"type": "custom", "name": "apply_patch"}
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "",
    "tools": [{"type": "function", "name": "get_customer"}, {"type": "custom", "name": "query"}],
}


class TestTools:
    def call(self, name: str, arguments: str, *, custom: bool = False, **body: Any) -> dict[str, Any]:
        events = [START, CallDelta(0, 0, "c1", name, arguments, custom), Finished(0, "tool_call")]
        [item] = replies(events, **({"tools": [PATCH, CRM]} | body))["output"]
        return item

    @pytest.mark.parametrize(
        ("arguments", "custom", "given"),
        [
            ('{"input":"*** Begin\\n"}', False, "*** Begin\n"),
            ('{"input":"a","b":1}', False, '{"input":"a","b":1}'),
            ('{"input":7}', False, '{"input":7}'),
            ("not json", False, "not json"),
            ("", False, ""),
            ('{"input":"kept"}', True, '{"input":"kept"}'),
        ],
    )
    def test_a_freeform_tools_call_is_text_again(self, arguments: str, custom: bool, given: str) -> None:
        assert self.call("apply_patch", arguments, custom=custom) == {
            "id": f"ctc_{STEM}_0",
            "type": "custom_tool_call",
            "status": "completed",
            "input": given,
            "call_id": "c1",
            "name": "apply_patch",
        }

    def test_its_events(self) -> None:
        events = [START, CallDelta(0, 0, "c1", "apply_patch", '{"input":"x"}')]
        assert [data["type"] for data in stream(events, about(tools=[PATCH]))][3:5] == [
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.done",
        ]

    def test_a_namespaces_calls_get_its_name_back(self) -> None:
        item = self.call("crm__get_customer", "{}")
        assert (item["type"], item["namespace"], item["name"]) == ("function_call", "crm", "get_customer")
        item = self.call("crm__query", '{"input":"x"}')
        assert (item["type"], item["namespace"], item["input"]) == ("custom_tool_call", "crm", "x")

    def test_tools_declared_in_the_middle(self) -> None:
        added = {"type": "additional_tools", "role": "developer", "tools": [PATCH]}
        item = self.call(
            "apply_patch", '{"input":"x"}', tools=None, input=[{"role": "user", "content": "Hi"}, added]
        )
        assert item["type"] == "custom_tool_call"

    def test_a_call_without_an_id_gets_one(self) -> None:
        [item] = replies([CallDelta(0, 0, "", "w", "{}")])["output"]
        assert item["call_id"] == f"call_{STEM}_0"
