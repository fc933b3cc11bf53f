"""The spans of a run: its root, its tool calls, what befell it, and how they hang together."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.chat.reply import ChoiceReply, Reply, ToolCall
from llm_proxy.records.view import Decision, ProviderUse
from llm_proxy.telemetry.ids import run_span_id, run_trace_id, span_id_of, tool_span_id
from llm_proxy.telemetry.items import Befallen, Item, Proposal, RunFacts, RunRef
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of
from tests.otlp_receiver import attributes_of
from tests.unit.telemetry_calls import STARTED_US, TRACEPARENT, plain_call, rich_call

RUN = RunRef("triage-bot", "run-1")
ABOVE = RunRef("boss", "run-0")
TOP = RunRef("boss", "run-top")
FACTS = RunFacts(
    ref=RUN,
    started_us=STARTED_US,
    parent=ABOVE,
    top=TOP,
    parent_run_id="run-0",
    team="support",
    role="support",
    user_id="ada@example.com",
    purpose="triage the queue",
    trigger="cron",
)


def told(item: Item, content_bytes: int = 100_000) -> list[Span]:
    return spans_of(item, SpanSettings(content_bytes=content_bytes))


def test_a_run_begins_with_its_root_and_calls_hang_below_it() -> None:
    call = plain_call(0)
    root, span = told(Item(call=call, run=FACTS, begins=True))
    assert root.name == "invoke_agent triage-bot"
    assert root.kind == Span.SPAN_KIND_INTERNAL
    assert root.span_id == run_span_id(RUN) == span.parent_span_id
    assert root.parent_span_id == run_span_id(ABOVE)
    assert root.trace_id == span.trace_id == run_trace_id(TOP), "a tree of runs is one trace"
    assert root.start_time_unix_nano == root.end_time_unix_nano == STARTED_US * 1000
    attributes = attributes_of(root)
    assert json.loads(str(attributes.pop("metadata"))) == {
        "run_id": "run-1",
        "agent_id": "triage-bot",
        "parent_run_id": "run-0",
        "team": "support",
        "role": "support",
    }
    assert attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "llm_proxy",
        "gen_ai.agent.id": "triage-bot",
        "gen_ai.agent.name": "triage-bot",
        "session.id": "run-1",
        "user.id": "ada@example.com",
        "openinference.span.kind": "AGENT",
        "llm_proxy.run.id": "run-1",
        "llm_proxy.parent_run.id": "run-0",
        "llm_proxy.agent.id": "triage-bot",
        "llm_proxy.agent.team": "support",
        "llm_proxy.agent.role": "support",
        "llm_proxy.run.purpose": "triage the queue",
        "llm_proxy.run.trigger": "cron",
    }
    assert told(Item(run=FACTS, begins=True)) == [root], "whatever it began with, it is the same"
    assert [s.name for s in told(Item(call=call, run=FACTS))] == ["chat gpt-4o-mini"]


def test_a_run_below_none_is_the_root_of_its_trace() -> None:
    alone = msgspec.structs.replace(FACTS, parent=None, top=RUN)
    (root,) = told(Item(run=alone, begins=True))
    assert root.parent_span_id == b""
    assert root.trace_id == hashlib.sha256(b"run:triage-bot\nrun-1").digest()[:16]


def test_a_traceparent_says_otherwise_and_the_run_is_linked() -> None:
    span = told(Item(call=rich_call(), run=FACTS))[0]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(TRACEPARENT.split("-")[1:3])
    (link,) = span.links
    assert (link.trace_id, link.span_id) == (run_trace_id(TOP), run_span_id(RUN))


def test_without_a_known_run_no_parent_is_named() -> None:
    (span,) = told(Item(call=plain_call(0)))
    assert span.parent_span_id == b""
    assert not span.links


def test_every_proposed_tool_call_has_its_span_with_the_verdict() -> None:
    call = rich_call()
    span, allowed, denied = told(Item(call=call, run=FACTS))
    for index, tool in enumerate((allowed, denied)):
        assert tool.span_id == tool_span_id(call.id, 0, index)
        assert (tool.trace_id, tool.parent_span_id) == (span.trace_id, span.span_id)
        assert tool.kind == Span.SPAN_KIND_INTERNAL
        assert tool.start_time_unix_nano == tool.end_time_unix_nano == span.end_time_unix_nano
    assert (allowed.name, denied.name) == ("execute_tool label_issue", "execute_tool close_issue")
    said = attributes_of(allowed)
    assert json.loads(str(said["gen_ai.tool.call.arguments"])) == {"number": 7, "label": "bug"}
    assert {key: said[key] for key in ("llm_proxy.decision", "llm_proxy.rule", "llm_proxy.effect")} == {
        "llm_proxy.decision": "allow",
        "llm_proxy.rule": "labels",
        "llm_proxy.effect": "read",
    }
    assert said["gen_ai.operation.name"] == "execute_tool"
    assert said["openinference.span.kind"] == "TOOL"
    assert said["gen_ai.tool.type"] == "function"
    assert "error.type" not in said
    assert allowed.status.code == 0
    said = attributes_of(denied)
    assert said["gen_ai.tool.call.id"] == "c2"
    assert said["gen_ai.tool.call.arguments"] == '{"number": 7', "no JSON: as the model wrote it"
    assert (said["error.type"], said["llm_proxy.rule"]) == ("policy_denied", "arguments")
    assert (denied.status.code, denied.status.message) == (2, "not valid JSON")
    assert said["session.id"] == said["llm_proxy.run.id"] == "run-1"
    assert said["llm_proxy.call.id"] == call.id


def test_a_tools_description_is_the_one_that_was_declared() -> None:
    call = rich_call()
    reads = msgspec.structs.replace(call.decisions[0], tool="read_issue")
    tools = told(Item(call=msgspec.structs.replace(call, decisions=(reads,)), run=FACTS))
    assert attributes_of(tools[1])["gen_ai.tool.description"] == "Reads one issue"


def test_what_is_judged_in_shadow_is_no_error() -> None:
    call = rich_call()
    watched = msgspec.structs.replace(call.decisions[1], shadow=True)
    tool = told(Item(call=msgspec.structs.replace(call, decisions=(watched,)), run=FACTS))[1]
    assert attributes_of(tool)["llm_proxy.shadow"] is True
    assert attributes_of(tool)["llm_proxy.decision"] == "deny"
    assert tool.status.code == 0


def test_without_a_policy_proposals_are_told_without_a_verdict() -> None:
    proposed = ToolCall(choice=1, index=2, id="c9", name="grep", arguments='{"q": "x"}')
    reply = Reply(choices=(ChoiceReply(index=1, calls=(proposed,), finish="tool_calls"),))
    call = msgspec.structs.replace(plain_call(0), reply=reply)
    _, tool = told(Item(call=call, run=FACTS))
    assert tool.span_id == tool_span_id(call.id, 1, 2)
    said = attributes_of(tool)
    assert said["gen_ai.tool.call.arguments"] == '{"q": "x"}'
    assert not {"llm_proxy.decision", "llm_proxy.shadow", "llm_proxy.effect", "error.type"} & said.keys()


def test_what_the_provider_ran_itself_has_a_span_of_its_own() -> None:
    uses = (ProviderUse(tool="web_search", id="ws_1"), ProviderUse(tool="shell", rule="provider-tool"))
    call = msgspec.structs.replace(plain_call(0), provider_tools=uses)
    _, searched, ran = told(Item(call=call, run=FACTS))
    assert attributes_of(searched)["gen_ai.tool.type"] == "extension"
    assert searched.status.code == 0
    assert (ran.status.code, attributes_of(ran)["llm_proxy.rule"]) == (2, "provider-tool")
    assert len({searched.span_id, ran.span_id, tool_span_id(call.id, 0, 0)}) == 3


@pytest.mark.parametrize("budget", [0, 30, 60, 1_000])
def test_arguments_beyond_the_budget_keep_whole_members(budget: int) -> None:
    arguments = json.dumps({"body": "x" * 200, "number": 7, "title": "a title"})
    decision = Decision(tool_call_id="c", tool="t", arguments=arguments, decision="allow")
    call = msgspec.structs.replace(plain_call(0), decisions=(decision,))
    said = attributes_of(told(Item(call=call, run=FACTS), budget)[1])
    kept = json.loads(str(said.get("gen_ai.tool.call.arguments", "{}")))
    assert set(kept) == {0: set[str](), 30: {"number"}, 60: {"number", "title"}}.get(
        budget, {"body", "number", "title"}
    )
    if budget < 1_000:
        assert said["llm_proxy.trimmed.tool.call.arguments.bytes"] == len(arguments)
        digest = hashlib.sha256(arguments.encode()).hexdigest()
        assert said["llm_proxy.trimmed.tool.call.arguments.sha256"] == digest
        assert said["llm_proxy.content.reference"] == call.id


@pytest.mark.parametrize("traceparent", ["", TRACEPARENT])
def test_the_call_that_brings_a_result_links_to_the_tool_call(traceparent: str) -> None:
    answered = Proposal(
        tool_call_id="c1",
        tool="label_issue",
        call_id="earlier",
        choice=0,
        index=1,
        at_us=STARTED_US - 2_500_000,
        traceparent=traceparent,
    )
    (span,) = told(Item(call=plain_call(0), run=FACTS, answers=(answered,)))
    (link,) = span.links
    trace = bytes.fromhex(TRACEPARENT.split("-")[1]) if traceparent else run_trace_id(TOP)
    assert (link.trace_id, link.span_id) == (trace, tool_span_id("earlier", 0, 1))
    said = {pair.key: pair.value for pair in link.attributes}
    assert said["llm_proxy.tool.duration_s"].double_value == 2.5
    assert said["gen_ai.tool.call.id"].string_value == "c1"


def test_an_action_is_its_own_tool_span() -> None:
    decision = Decision(tool_call_id="a1", tool="deploy", arguments='{"env": "prod"}', decision="deny")
    call = msgspec.structs.replace(
        plain_call(0), operation="execute_tool", model="deploy", decisions=(decision,), reply=None
    )
    (span,) = told(Item(call=call, run=FACTS))
    said = attributes_of(span)
    assert span.name == "execute_tool deploy"
    assert said["gen_ai.tool.name"] == "deploy"
    assert said["gen_ai.tool.call.arguments"] == '{"env": "prod"}'
    assert said["openinference.span.kind"] == "TOOL"
    assert len({pair.key for pair in span.attributes}) == len(span.attributes), "no key twice"


def test_what_befell_a_run_is_a_span_below_it() -> None:
    what = Befallen(kind="run.effect", at_us=STARTED_US + 5, told={"kind": "issue", "url": "https://x/7"})
    (span,) = told(Item(writer="w", seq=7, run=FACTS, befallen=what))
    assert (span.name, span.span_id, span.parent_span_id) == (
        "run.effect",
        span_id_of("w/7"),
        run_span_id(RUN),
    )
    said = attributes_of(span)
    assert (said["llm_proxy.run.effect.kind"], said["llm_proxy.run.effect.url"]) == ("issue", "https://x/7")
    assert said["llm_proxy.run.id"] == "run-1"


def test_the_ids_are_the_same_without_content() -> None:
    item = Item(call=rich_call(), run=FACTS, begins=True)
    assert [s.span_id for s in told(item, 0)] == [s.span_id for s in told(item)]
