"""Phoenix shows what the proxy exported: found by run, agent and reasoning, with content, tokens and cost.

`make test-phoenix` installs it and runs these. Everything is asked through Phoenix's own API.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView
from tests.backends import traced_house as house
from tests.backends.phoenix import Phoenix, serving_phoenix

pytestmark = [pytest.mark.phoenix, pytest.mark.asyncio(loop_scope="module")]

DEMO_RUN, DEMO_AGENT, DEMO_CALLS = "refund-A-1042", "support-agent", 4
LLM = "span_kind == 'LLM'"


@dataclass(frozen=True)
class Shown:
    """Phoenix after two runs; `calls` are the records of the second, by call id, in order."""

    phoenix: Phoenix
    calls: dict[str, CallView]

    def span(self, call_id: str) -> dict[str, Any]:
        """The one span of a call."""
        [found] = self.phoenix.spans(f"attributes['llm_proxy']['call']['id'] == '{call_id}' and {LLM}")
        return found


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with serving_phoenix(tmp_path_factory.mktemp("phoenix")) as server:
        server.price(house.MODEL, **house.PER_MILLION)
        yield server


@pytest.fixture(scope="module")
def demo(phoenix: Phoenix) -> None:
    """`llm-proxy demo`, as anyone may play it."""
    played = subprocess.run(
        [sys.executable, "-m", "llm_proxy", "demo", "--otlp", phoenix.url],
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert played.returncode == 0, played.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(
    phoenix: Phoenix, demo: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shown]:
    async with house.traced_proxy(tmp_path_factory.mktemp("proxy"), phoenix.url) as proxy:
        made = await house.play(proxy)
        await proxy.settled()
        phoenix.awaited(LLM, DEMO_CALLS + len(made))
        yield Shown(phoenix, {call_id: proxy.view(call_id) for call_id in made})


def _named(spans: list[dict[str, Any]]) -> set[str]:
    return {span["attributes"]["llm_proxy"]["call"]["id"] for span in spans}


def _parts(span: dict[str, Any], side: str, number: int = 0) -> list[tuple[str, str]]:
    """The type and text of each part of a message, as Phoenix converted it for its own display."""
    message = span["attributes"]["llm"][f"{side}_messages"][number]["message"]
    contents = [part["message_content"] for part in message.get("contents", [])]
    return [(part["type"], part["text"]) for part in contents]


async def test_a_run_is_found_by_its_id(shown: Shown) -> None:
    """By GraphQL, as the search field does, by the REST API, and as a session."""
    first, second, _, refused = shown.calls
    by_filter = shown.phoenix.spans(f"attributes['llm_proxy']['run']['id'] == '{house.RUN}' and {LLM}")
    assert _named(by_filter) == {first, second, refused}
    by_session = shown.phoenix.spans(f"attributes['session']['id'] == '{house.RUN}' and {LLM}")
    assert _named(by_session) == {first, second, refused}
    by_rest = shown.phoenix.spans_by_attribute("llm_proxy.run.id", house.RUN)
    asked = [span for span in by_rest if span["span_kind"] == "LLM"]
    assert {span["attributes"]["llm_proxy.call.id"] for span in asked} == {first, second, refused}
    sessions = shown.phoenix.get("/v1/projects/llm-proxy/sessions")["data"]
    assert {house.RUN, DEMO_RUN} <= {session["session_id"] for session in sessions}


async def test_an_agents_calls_are_found_by_its_id(shown: Shown) -> None:
    demo = shown.phoenix.spans(f"attributes['gen_ai']['agent']['id'] == '{DEMO_AGENT}' and {LLM}")
    assert len(demo) == DEMO_CALLS
    assert {span["trace"]["session"]["sessionId"] for span in demo} == {DEMO_RUN}
    ours = shown.phoenix.spans(f"attributes['llm_proxy']['agent']['id'] == '{house.AGENT}' and {LLM}")
    assert _named(ours) == set(shown.calls)
    assert _named(shown.phoenix.spans(f"metadata['agent_id'] == '{house.AGENT}' and {LLM}")) == set(
        shown.calls
    )


@pytest.mark.parametrize(
    ("words", "which"), [("ledger says gallimaufry", (0,)), ("refused, so I tell", (1, 2))]
)
async def test_a_call_is_found_by_words_of_its_reasoning(
    shown: Shown, words: str, which: tuple[int, ...]
) -> None:
    found = shown.phoenix.spans(f"'{words}' in attributes['gen_ai']['output']['messages'] and {LLM}")
    ids = list(shown.calls)
    assert _named(found) == {ids[number] for number in which}


async def test_the_demos_reasoning_is_found_as_well(shown: Shown) -> None:
    found = shown.phoenix.spans(f"'honest answer' in attributes['gen_ai']['output']['messages'] and {LLM}")
    assert len(found) == 1
    assert ("reasoning", _parts(found[0], "output")[0][1]) == _parts(found[0], "output")[0]
    assert "when they will hear from us" in _parts(found[0], "output")[0][1]


async def test_messages_reasoning_and_tool_calls_are_shown(shown: Shown) -> None:
    first, second, *_ = shown.calls
    span = shown.span(first)
    assert _parts(span, "output") == [("reasoning", house.THOUGHT), ("text", "One moment.")]
    proposed = [
        call["tool_call"]["function"]
        for call in span["attributes"]["llm"]["output_messages"][0]["message"]["tool_calls"]
    ]
    assert [(call["name"], json.loads(call["arguments"])) for call in proposed] == [
        (call["name"], call["arguments"]) for call in (house.READ, house.MAIL)
    ]
    later = shown.span(second)
    assert _parts(later, "output") == [("reasoning", house.SECOND_THOUGHT), ("text", house.ANSWER)]
    sent = [message["message"] for message in later["attributes"]["llm"]["input_messages"]]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert "I want my money back." in json.dumps(sent[0])
    assert "C-7 is a customer." in json.dumps(sent[2])
    assert len(span["attributes"]["llm"]["tools"]) == len(house.TOOLS)


async def test_verdicts_are_shown_and_found(shown: Shown) -> None:
    first = next(iter(shown.calls))
    denied = shown.phoenix.spans(f"attributes['llm_proxy']['decision'] == 'deny' and {LLM}")
    assert first in _named(denied)
    assert "llm_proxy.decision" in {event["name"] for event in shown.span(first)["events"]}


async def test_tokens_are_shown(shown: Shown) -> None:
    span = shown.span(next(iter(shown.calls)))
    usage = house.USAGE
    assert (span["tokenCountPrompt"], span["tokenCountCompletion"]) == (usage["input"], usage["output"])
    assert span["tokenCountTotal"] == usage["input"] + usage["output"]
    assert span["tokenPromptDetails"] == {"cacheRead": usage["cached"], "cacheWrite": usage["cache_write"]}
    counted = span["attributes"]["llm"]["token_count"]["completion_details"]
    assert counted["reasoning"] == usage["reasoning"]


async def test_cost_is_shown_and_is_the_proxys(shown: Shown) -> None:
    """Ours as an attribute, and Phoenix's own sum the same. The demo's prices it knows without being told."""
    for call_id, call in shown.calls.items():
        span = shown.span(call_id)
        assert span["attributes"]["llm_proxy"]["cost_micro_usd"] == call.cost_micro_usd
        assert span["attributes"]["llm"]["cost"]["total"] == call.cost_micro_usd / 1e6
        summed = span["costSummary"]["total"]["cost"] if span["costSummary"] else 0.0
        assert summed == pytest.approx(call.cost_micro_usd / 1e6, abs=2e-6)
    assert [call.cost_micro_usd > 0 for call in shown.calls.values()] == [True, True, True, False]
    demo = shown.phoenix.spans(f"attributes['llm_proxy']['run']['id'] == '{DEMO_RUN}' and {LLM}")
    ours = sum(span["attributes"]["llm_proxy"]["cost_usd"] for span in demo)
    assert sum(span["costSummary"]["total"]["cost"] for span in demo) == pytest.approx(ours, abs=1e-5)
    assert ours == pytest.approx(0.010248)


async def test_a_sub_run_names_its_parent_and_is_found_by_it(shown: Shown) -> None:
    helper = list(shown.calls)[2]
    found = shown.phoenix.spans(f"attributes['llm_proxy']['parent_run']['id'] == '{house.RUN}' and {LLM}")
    assert _named(found) == {helper}
    assert found[0]["attributes"]["session"]["id"] == house.SUB_RUN


async def test_a_refused_call_is_an_error_with_its_reason(shown: Shown) -> None:
    *_, refused = shown.calls
    span = shown.span(refused)
    assert span["statusCode"] == "ERROR"
    assert "unheard-of" in span["statusMessage"]
    failed = shown.phoenix.spans(f"status_code == 'ERROR' and {LLM}")
    assert _named(failed) == {refused}


async def test_each_tool_call_is_a_span_with_its_verdict(shown: Shown) -> None:
    first = next(iter(shown.calls))
    tools = shown.phoenix.spans(f"attributes['llm_proxy']['call']['id'] == '{first}' and span_kind == 'TOOL'")
    told = {
        span["name"]: (
            span["attributes"]["llm_proxy"]["decision"],
            json.loads(span["attributes"]["gen_ai"]["tool"]["call"]["arguments"]),
        )
        for span in tools
    }
    assert told == {
        "execute_tool crm_read": ("allow", house.READ["arguments"]),
        "execute_tool mail_send": ("deny", house.MAIL["arguments"]),
    }
    assert {span["parentId"] for span in tools} == {shown.span(first)["spanId"]}


async def test_a_run_and_its_sub_run_are_one_tree(shown: Shown) -> None:
    """One `invoke_agent` span each; everything else hangs below one of them, in one trace."""
    ours = shown.phoenix.spans(f"attributes['llm_proxy']['agent']['id'] == '{house.AGENT}'")
    by_id = {span["spanId"]: span for span in ours}
    assert len(by_id) == len(ours)
    assert len({span["trace"]["traceId"] for span in ours}) == 1
    agents = {
        span["attributes"]["session"]["id"]: span
        for span in ours
        if span["name"] == f"invoke_agent {house.AGENT}"
    }
    assert set(agents) == {house.RUN, house.SUB_RUN}
    assert agents[house.RUN]["parentId"] is None
    assert agents[house.SUB_RUN]["parentId"] == agents[house.RUN]["spanId"]
    assert {span["parentId"] for span in ours if span is not agents[house.RUN]} <= set(by_id)
