"""A model whose calls are all denied reads why, and does something else: in every dialect it goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, JUDGED, UPSTREAMS, Agent, each_speaking
from tests.e2e.scripted_house import House
from tests.proxy import ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"SECRET"
_BAD = "{name: mail_send, arguments: {to: SECRET}}"
_READ = '{name: crm_read, arguments: {id: "7"}}'
_SEARCH = '{name: kb_search, arguments: {id: "8"}}'
_TOLD = "tool_answered: mail_send"
SCRIPT = f"""
default:
  turns:
    - {{when: {{tool_answered: crm_read}}, text: All done., usage: {{input: 300, output: 5}}}}
    - {{when: {{last_user_contains: thanks}}, text: You are welcome., usage: {{input: 300, output: 5}}}}
    - {{when: {{last_user_contains: <mixed>}}, reasoning: Hm., text: I do four.,
        tool_calls: [{_BAD}, {_READ}, {_BAD}, {_SEARCH}]}}
    - {{when: {{last_user_contains: <stubborn>}}, text: Again., tool_calls: [{_BAD}],
        usage: {{input: 100, output: 20}}}}
    - {{when: {{last_user_contains: <cut>, {_TOLD}}}, text: It goes on and on., cut_after: 6}}
    - {{when: {{last_user_contains: <down>, {_TOLD}}}, status: 500}}
    - {{when: {{last_user_contains: <acts>, {_TOLD}}}, reasoning: I look instead., text: I look.,
        tool_calls: [{_READ}], usage: {{input: 150, output: 30}}}}
    - {{when: {{last_user_contains: <silent>, {_TOLD}}}, text: I can not mail that.,
        usage: {{input: 150, output: 30}}}}
    - {{when: {{{_TOLD}}}, reasoning: I can not mail., text: I can not mail that.,
        usage: {{input: 150, output: 30}}}}
    - {{when: {{last_user_contains: <silent>}}, tool_calls: [{_BAD}], usage: {{input: 100, output: 20}}}}
    - {{reasoning: I mail it., text: One moment., tool_calls: [{_BAD}, {_BAD}],
        usage: {{input: 100, output: 20}}}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "replans", "version": 1},
    "declare": "pass",
    "tools": JUDGED,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = each_speaking(upstream.origin)
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
        settings = config(
            upstream.base_url,
            models=models,
            prices={"m": price},
            budgets=[{"id": "all", "agent": "bot", "window": "day", "usd": 100, "requests": 100_000}],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("replan"), settings, policy=POLICY) as proxy:
            yield House(proxy, upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("asked", ["plain", "acts", "silent"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_the_model_is_asked_again(
    house: House, kind: type[Agent], upstream: str, asked: str, stream: bool
) -> None:
    proxy, think = house.proxy, asked != "silent"
    used = proxy.used("all", "micro_usd")
    async with kind(proxy, upstream, run=f"{kind.dialect}-{upstream}-{asked}-{stream}", think=think) as agent:
        heard = await agent.say(f"do it <{asked}>", stream=stream)
        assert SECRET not in agent.tape.bytes
        assert "llm-proxy" not in heard.text
        acts = asked == "acts"
        said = "I look." if acts else "I can not mail that."
        joins = kind.dialect == upstream == "openai_responses"  # two messages, which the SDK puts together
        assert joins or not think or "One moment.\n\n" in heard.text
        assert "".join(heard.text.split()) == ("Onemoment." if think else "") + "".join(said.split())
        assert heard.calls == ([("crm_read", {"id": "7"})] if acts else [])
        assert heard.stop == agent.ends[acts]
        view = proxy.view(agent.tape.call_id)
        assert view.status is Status.OK
        assert view.released == agent.tape.bytes
        assert [attempt.replan for attempt in view.attempts] == [0, 1]
        assert [(d.tool, d.decision) for d in view.decisions] == [
            *[("mail_send", "deny")] * (2 if think else 1),
            *[("crm_read", "allow")] * acts,
        ]
        assert view.usage is not None
        assert (view.usage.input, view.usage.output) == (250, 50)
        assert view.cost_label is CostLabel.REPORTED
        assert view.cost_micro_usd == 350 == proxy.used("all", "micro_usd") - used
        assert view.reply is not None
        assert len(view.reply.choices[0].calls) == len(view.decisions)
        assert len(view.rounds) == 1
        newest = house.upstream.seen[-1]
        assert "denied by rule 'prohibited'" in newest.body.decode()
        heard = await (agent.answer(stream=stream) if acts else agent.say("thanks", stream=stream))
        assert heard.text == ("All done." if acts else "You are welcome.")
        _check_retold(house.upstream.seen[-1].body, upstream, think=think)
    assert proxy.held_amounts() == 0


def _check_retold(sent: bytes, upstream: str, *, think: bool) -> None:
    """The model is sent its first turn, with its calls, what it was told of them, and then its second."""
    assert sent.count(SECRET) == (2 if think else 1)
    assert sent.count(b"denied by rule 'prohibited'") == (2 if think else 1)
    assert sent.count(b"One moment.") == int(think)
    if upstream == "openai_responses":
        kinds = [item.get("type") or item["role"] for item in json.loads(sent)["input"]]
        assert kinds.index("function_call_output") > kinds.index("function_call")
        return
    roles = [message["role"] for message in json.loads(sent)["messages"]]
    answers = ["tool"] * (2 if think else 1) if upstream == "openai_chat" else ["user"]
    assert roles[: 3 + len(answers)] == ["user", "assistant", *answers, "assistant"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_denied_siblings_come_back(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    """An agent that saw two of four calls has all four in what its model is sent next, and no note."""
    async with kind(house.proxy, upstream, run=f"mixed-{kind.dialect}-{upstream}-{stream}") as agent:
        heard = await agent.say("do it <mixed>", stream=stream)
        assert heard.calls == [("crm_read", {"id": "7"}), ("kb_search", {"id": "8"})]
        assert heard.text.count("denied by rule 'prohibited'") == 2
        for _ in range(2):  # the same each time, so that a prompt's cache holds
            await agent.answer(stream=stream) if _ == 0 else await agent.say("thanks", stream=stream)
            sent = json.loads(house.upstream.seen[-1].body)
            if upstream == "openai_chat":
                turn = next(m for m in sent["messages"] if m.get("tool_calls"))
                names = [call["function"]["name"] for call in turn["tool_calls"]]
                ids = [call["id"] for call in turn["tool_calls"]]
                told = {m["tool_call_id"]: m["content"] for m in sent["messages"] if m["role"] == "tool"}
                assert turn["content"] == "I do four."
            elif upstream == "anthropic_messages":
                turn = next(m for m in sent["messages"] if m["role"] == "assistant")
                calls = [block for block in turn["content"] if block["type"] == "tool_use"]
                names, ids = [call["name"] for call in calls], [call["id"] for call in calls]
                results = sent["messages"][sent["messages"].index(turn) + 1]["content"]
                told = {block["tool_use_id"]: block["content"] for block in results}
                assert [b["text"] for b in turn["content"] if b["type"] == "text"] == ["I do four."]
            else:
                calls = [item for item in sent["input"] if item.get("type") == "function_call"]
                names, ids = [call["name"] for call in calls], [call["call_id"] for call in calls]
                told = {i["call_id"]: i["output"] for i in sent["input"] if "output" in i}
            assert names == ["mail_send", "crm_read", "mail_send", "kb_search"]
            assert ["denied by rule" in str(told[id_]) for id_ in ids] == [True, False, True, False]
            assert json.dumps(sent).count("denied by rule") == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_stubborn_model_is_replaced_in_the_end(house: House, kind: type[Agent], stream: bool) -> None:
    """Twice it is asked again, as the policy says; then its agent reads what was denied."""
    async with kind(house.proxy, kind.dialect, run=f"stubborn-{kind.dialect}-{stream}", think=False) as agent:
        heard = await agent.say("do it <stubborn>", stream=stream)
        assert SECRET not in agent.tape.bytes
        assert heard.text.count("Again.") == 3
        assert heard.text.count("denied by rule 'prohibited'") == 1
        assert (heard.calls, heard.stop) == ([], agent.ends[False])
        view = house.proxy.view(agent.tape.call_id)
        assert [attempt.replan for attempt in view.attempts] == [0, 1, 2]
        assert view.usage is not None
        assert (view.usage.input, view.usage.output) == (300, 60)
        assert len({(d.choice, d.index) for d in view.decisions}) == 3
        if kind.dialect == "openai_chat":
            sent = json.loads(house.upstream.seen[-1].body)["messages"]
            assert [m["role"] for m in sent] == ["user", "assistant", "tool", "assistant", "tool"]
        assert (await agent.say("thanks", stream=stream)).text == "You are welcome."


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_nobody_answers_a_second_time(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    """Then the agent gets the first reply, and what was denied."""
    used = house.proxy.used("all", "micro_usd")
    async with kind(
        house.proxy, upstream, run=f"down-{kind.dialect}-{upstream}-{stream}", think=False
    ) as agent:
        heard = await agent.say("do it <down>", stream=stream)
        view = house.proxy.view(agent.tape.call_id)
    assert heard.text.startswith("One moment.")
    assert heard.text.count("denied by rule 'prohibited'") == 2
    assert (view.status, view.released) == (Status.OK, agent.tape.bytes)
    assert [(a.replan, bool(a.failure)) for a in view.attempts] == [(0, False), (1, True)]
    assert view.usage is not None
    assert (view.usage.input, view.usage.output, view.rounds) == (100, 20, ())
    assert view.cost_micro_usd == 140 == house.proxy.used("all", "micro_usd") - used
    assert house.proxy.held_amounts() == 0


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_second_reply_that_is_cut(house: House, kind: type[Agent], upstream: str) -> None:
    """Its agent has some of it, so that the stream ends with an error; what came of both is charged."""
    async with kind(house.proxy, upstream, run=f"cut-{kind.dialect}-{upstream}", think=False) as agent:
        with pytest.raises((openai.APIError, anthropic.APIError, httpx.HTTPError, RuntimeError)):
            await agent.say("do it <cut>", stream=True)
        view = house.proxy.view(agent.tape.call_id)
    assert view.status is Status.FAILED
    assert view.released is not None
    assert view.released in agent.tape.bytes
    assert b"It" in view.released
    assert view.usage is not None
    assert view.usage.input > 150
    assert view.cost_label is CostLabel.PARTIAL
    assert house.proxy.held_amounts() == 0


async def test_a_forced_tool_and_several_choices_are_replaced(house: House) -> None:
    """A model that has to call would call again; of several choices only one could go on."""
    names = ("crm_read", "mail_send")
    anything = {"type": "object"}
    tools: Any = [{"type": "function", "function": {"name": n, "parameters": anything}} for n in names]
    several: list[Any] = [{"tool_choice": "required"}, {"n": 2}]
    for more in several:
        async with house.proxy.sdk() as sdk:
            asked: Any = {"model": "openai_chat", "messages": [{"role": "user", "content": "do it"}]}
            reply = await sdk.chat.completions.create(**asked, tools=tools, **more)
        for choice in reply.choices:
            assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
            assert "denied by rule 'prohibited'" in (choice.message.content or "")
    newest = house.upstream.seen[-1].body
    assert b"prohibited" not in newest
