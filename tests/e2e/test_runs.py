"""Runs under an envelope: opened, used up, expired, ended, and every refusal in words that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from tests.e2e.runs_house import CAP, MICRO_USD, STRICT_KEY, TOKENS, House, runs_house
from tests.proxy import KEY, OTHER_KEY, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with runs_house(tmp_path_factory.mktemp("runs")) as opened:
        yield opened


async def test_a_run_is_opened_used_and_looked_at(house: House) -> None:
    envelope = {"usd": 0.5, "requests": 3, "tools": ["crm_*"], "expires_s": 900}
    trigger = {"kind": "ticket", "id": "4711", "url": "https://desk.example/4711"}
    run = await house.opened(purpose="answer 4711", envelope=envelope, trigger=trigger, user="ada")
    assert run["run_id"].startswith("run_")
    assert run["token"].startswith("lp-")
    assert (run["status"], run["purpose"], run["trigger"], run["user"]) == (
        "open",
        "answer 4711",
        trigger,
        "ada",
    )
    assert run["envelope"] == envelope
    assert run["left"] == {"usd": 0.5, "requests": 3, "tool_calls": 40}
    assert run["expires_us"] - run["started_us"] == 900_000_000
    async with house.proxy.sdk(run["token"], default_headers={"x-run-id": "elsewhere"}) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask("hi", max_completion_tokens=CAP))
    assert raw.headers["x-run-id"] == run["run_id"], "a token is good for its run alone"
    view = house.proxy.view(raw.headers["x-call-id"])
    assert (view.run_id, view.user_id) == (run["run_id"], "ada")
    for key in (KEY, run["token"]):
        seen = await house.run(run["run_id"], key)
        assert seen["left"] == {"usd": 0.5 - MICRO_USD / 1e6, "requests": 2, "tool_calls": 40}
        assert seen["calls"] == {"total": 1, "open": 0, "refused": 0, "failed": 0}
        assert seen["cost_micro_usd"] == MICRO_USD
        assert "token" not in seen
    uses = {(use["limit"], use["unit"]): use for use in seen["limits"]}
    mine = uses[f"envelope:{run['run_id']}", "requests"]
    assert (mine["used"], mine["held"], mine["left"], mine["maximum"]) == (1, 0, 2, 3)
    assert uses["per-run", "requests"]["left"] == 399


@pytest.mark.parametrize(
    ("unit", "most", "said"),
    [
        ("requests", 2, "allows 2 requests: 2 used"),
        ("usd", (2 * MICRO_USD + 5) / 1e6, f"allows $0.000069: ${2 * MICRO_USD / 1e6:.6f} used"),
        ("tokens", 2 * TOKENS + 5, "allows 45 tokens: 40 used"),
        ("input_tokens", 20, "allows 20 input_tokens: 16 used"),
        ("output_tokens", 2 * CAP + 5, "allows 29 output_tokens: 24 used"),
    ],
)
async def test_an_envelope_that_is_used_up_says_what_is_left(
    house: House, unit: str, most: float, said: str
) -> None:
    run = await house.opened(envelope={unit: most, "tool_calls": 7})
    assert [(await house.call(run["run_id"])).status for _ in range(2)] == [200, 200]
    refused = await house.call(run["run_id"])
    assert (refused.status, refused.error["code"]) == (429, "budget_exceeded")
    assert f"The envelope of run '{run['run_id']}' {said}" in refused.said
    assert "Left of it: " in refused.said
    assert "7 tool_calls" in refused.said
    assert "open another run with POST /v1/runs" in refused.said
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert house.proxy.view(refused.headers["x-call-id"]).status is Status.REFUSED
    seen = await house.run(run["run_id"])
    if unit == "requests":
        assert seen["status"] == "exhausted"
        assert "all 2 requests of the envelope" in seen["why"]
    assert seen["calls"]["refused"] == 1


async def test_tools_outside_the_envelope_are_denied_without_a_policy(house: House) -> None:
    run = await house.opened(envelope={"tools": ["crm_*"], "tool_calls": 1})
    answer = await house.call(run["run_id"], body={"model": "m-tools"})
    [choice] = answer.body["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["crm_read"]
    assert "'mail_send' was denied by rule 'envelope'" in choice["message"]["content"]
    decisions = house.proxy.view(answer.headers["x-call-id"]).decisions
    assert [(d.tool, d.decision, d.rule) for d in decisions] == [
        ("crm_read", "allow", ""),
        ("mail_send", "deny", "envelope"),
    ]
    refused = await house.call(run["run_id"])
    assert refused.status == 429
    assert "allows 1 tool_calls: 1 used" in refused.said


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"usd": 50.000001}, "limit 'bot-day', which allows $50.000000 (day)"),
        ({"requests": 401}, "limit 'per-run', which allows 400 requests (run)"),
        ({"tool_calls": 41}, "limit 'per-run', which allows 40 tool_calls (run)"),
    ],
)
async def test_an_envelope_wider_than_the_agents_limits_is_refused(
    house: House, envelope: dict[str, Any], said: str
) -> None:
    refused = await house.open(envelope=envelope, run_id="too-wide")
    assert (refused.status, refused.error["code"]) == (403, "policy_denied")
    assert said in refused.said
    assert refused.headers["x-should-retry"] == "false"
    assert (await house.send("GET", "/v1/runs/too-wide")).status == 404


async def test_what_no_parent_allows_is_refused(house: House) -> None:
    envelope = {"requests": 5, "tools": ["crm_*"], "expires_s": 600}
    parent = await house.opened(envelope=envelope, run_id="p")
    assert (await house.call("p")).status == 200
    refusals = {
        "is wider than what is left of the envelope of run 'p' above it: 4 requests": {"requests": 5},
        "tool 'mail_send' is not among those of run 'p' above it": {"tools": ["mail_send"]},
        "tool 'c*' is not among those of run 'p' above it": {"tools": ["c*"]},
        "expires_s is longer than the runs above it last": {"expires_s": 601},
    }
    for said, asked in refusals.items():
        refused = await house.open(parent="p", envelope=asked)
        assert (refused.status, refused.error["code"]) == (403, "policy_denied"), asked
        assert said in refused.said
    child = await house.opened(parent="p", envelope={"requests": 4, "tools": ["crm_read"]})
    assert child["expires_us"] == parent["expires_us"], "it lasts no longer than what is above it"
    assert child["parent"] == {"agent_id": "bot", "run_id": "p"}
    [seen] = (await house.run("p"))["children"]
    assert (seen["run_id"], seen["status"], seen["purpose"]) == (child["run_id"], "open", "test")
    foreign = await house.open(OTHER_KEY, parent="p")
    assert (foreign.status, foreign.error["code"]) == (403, "policy_denied")
    assert "'p' is no run of agent 'other'" in foreign.said
    shown = await house.opened(OTHER_KEY, parent["token"], envelope={"tools": ["crm_x"]})
    assert (shown["agent_id"], shown["parent"]) == ("other", {"agent_id": "bot", "run_id": "p"})
    mismatched = await house.open(OTHER_KEY, parent["token"], parent="else")
    assert mismatched.status == 403
    assert "x-run-token is that of run 'p'" in mismatched.said
    guessed = await house.open(OTHER_KEY, "lp-a-guess")
    assert (guessed.status, guessed.error["code"]) == (401, "invalid_credential")
    keyed = await house.open(OTHER_KEY, KEY)
    assert "bound to no run" in keyed.said


async def test_a_token_opens_runs_below_its_own_alone(house: House) -> None:
    run = await house.opened(envelope={"requests": 9})
    below = await house.opened(run["token"], envelope={"requests": 2})
    assert below["parent"] == {"agent_id": "bot", "run_id": run["run_id"]}
    refused = await house.open(run["token"], parent=below["run_id"])
    assert (refused.status, refused.error["code"]) == (403, "policy_denied")
    assert f"bound to run {run['run_id']!r}" in refused.said
    await house.opened(run_id="aside")
    for key, run_id, status in (
        (run["token"], below["run_id"], 200),
        (below["token"], run["run_id"], 404),
        (run["token"], "aside", 404),
        (OTHER_KEY, run["run_id"], 404),
        (KEY, "nobodys", 404),
    ):
        answer = await house.send("GET", f"/v1/runs/{run_id}", key=key)
        assert answer.status == status
        ended = await house.send("POST", f"/v1/runs/{run_id}/end", {"why": "w"}, key)
        assert ended.status == status
        if status == 404:
            assert answer.error["code"] == ended.error["code"] == "invalid_request"


async def test_a_run_id_is_opened_once(house: House) -> None:
    await house.opened(run_id="once")
    await house.call("called")
    for run_id in ("once", "called"):
        again = await house.open(run_id=run_id)
        assert (again.status, again.error["code"], again.error["param"]) == (400, "invalid_request", "run_id")
        assert "is there already" in again.said
    assert (await house.opened(OTHER_KEY, run_id="once"))["agent_id"] == "other", "ids belong to agents"


async def test_what_is_no_request_about_a_run_is_refused(house: House) -> None:
    for method, path, body, status, said in (
        ("POST", "/v1/runs", b"{", 400, "no JSON"),
        ("POST", "/v1/runs", {"purpose": "p", "envelope": {"usd": "NaN"}}, 400, "envelope.usd"),
        ("POST", "/v1/runs", {"purpose": "p", "max": 1}, 400, "unknown field `max`"),
        ("POST", "/v1/runs", b" " * 70_000, 413, "over 64 KiB"),
        ("GET", "/v1/runs", None, 404, "is not served"),
        ("DELETE", "/v1/runs/x", None, 404, "is not served"),
        ("POST", "/v1/runs/x", {}, 404, "is not served"),
        ("POST", "/v1/runs//end", {"why": "w"}, 404, "is not served"),
        ("POST", "/v1/runs/x/end", {}, 400, "why"),
    ):
        answer = await house.send(method, path, body)
        assert answer.status == status, (method, path, answer)
        assert said in answer.said
    assert (await house.send("POST", "/v1/runs", {"purpose": "p"}, key=None)).status == 401
    assert (await house.send("GET", "/v1/runs/x", key="lp-guess")).status == 401


async def test_an_expired_run_takes_no_more_calls(house: House) -> None:
    run = await house.opened(envelope={"expires_s": 1})
    await house.call("below-expired", x_parent_run_id=run["run_id"])
    await asyncio.sleep(1.1)
    ways: list[dict[str, Any]] = [
        {"run": run["run_id"]},
        {"key": run["token"]},
        {"run": "below-expired"},
        {"run": "fresh-below", "key": OTHER_KEY, "x_run_token": run["token"]},
    ]
    for more in ways:
        refused = await house.call(**more)
        assert (refused.status, refused.error["code"]) == (403, "run_ended"), more
        assert f"{run['run_id']}'" in refused.said
        assert "expired at 20" in refused.said
        assert refused.headers["x-should-retry"] == "false"
        view = house.proxy.view(refused.headers["x-call-id"])
        assert view.status is Status.REFUSED
        assert view.problem is not None
        assert view.problem.kind == "run_ended"
    seen = await house.run(run["run_id"])
    assert (seen["status"], seen["why"].startswith("expired at 20")) == ("expired", True)
    child = await house.open(parent=run["run_id"])
    assert (child.status, child.error["code"]) == (403, "run_ended")
    async with house.proxy.sdk(run["token"]) as sdk:
        with pytest.raises(openai.PermissionDeniedError, match="expired at"):
            await sdk.chat.completions.create(**ask())


async def test_a_foreign_run_id_changes_nobody_elses_budget(house: House) -> None:
    run = await house.opened(envelope={"requests": 2}, run_id="mine")
    before = house.proxy.counters()
    theirs = await house.opened(OTHER_KEY, run_id="theirs")
    ways: list[dict[str, Any]] = [
        {"run": "mine"},
        {"body": {"metadata": {"run_id": "mine"}}},
        {"baggage": "run.id=mine"},
        {"run": "x1", "x_parent_run_id": "mine"},
        {"run": "x2", "baggage": "parent.run.id=mine"},
        {"run": "x3", "body": {"user": "bot"}, "x_user_id": "bot"},
    ]
    for named in ways:
        assert (await house.call(key=OTHER_KEY, **named)).status == 200
    assert (await house.call("mine", key=theirs["token"])).headers["x-run-id"] == "theirs"
    after = house.proxy.counters()
    assert {key: value for key, value in after.items() if "agent=bot" in key} == {
        key: value for key, value in before.items() if "agent=bot" in key
    }
    assert (await house.run("mine"))["left"] == run["left"]
    assert [view.agent_id for view in house.proxy.views(run="mine")] == ["other"] * 3


async def test_an_agent_that_must_name_its_run_may_do_so_by_token_or_body(house: House) -> None:
    refused = await house.call(key=STRICT_KEY)
    assert (refused.status, refused.error["code"]) == (400, "run_required")
    assert "x-run-id" in refused.said
    run = await house.opened(STRICT_KEY)
    metadata = '{"_user": "ada", "feature": "search"}'
    ways: list[dict[str, Any]] = [
        {"key": run["token"]},
        {"key": STRICT_KEY, "body": {"metadata": {"session_id": "s"}}},
        {"key": STRICT_KEY, "baggage": "run.id=b"},
        {"key": STRICT_KEY, "run": "tagged", "x_portkey_metadata": metadata},
    ]
    for more in ways:
        assert (await house.call(**more)).status == 200
    [view] = house.proxy.views(run="tagged")
    assert (view.tags, view.user_id) == (("feature=search",), "ada")
