"""Actions that no model proposed: judged, counted once, placed, recorded; two workers, both stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL

from llm_proxy.records.ids import now_us
from llm_proxy.records.view import Status
from llm_proxy.spend.reconcile import reconcile
from tests.e2e.actions_house import FRESH_KEY, POLICY, WATCHED_KEY, Actions, actions_house
from tests.proxy import KEY, OTHER_KEY

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Actions]:
    folder = tmp_path_factory.mktemp("actions")
    if request.param == "sqlite":
        async with actions_house(folder) as opened:
            yield opened
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url:
        async with actions_house(folder, store=url.render_as_string(hide_password=False)) as opened:
            yield opened


async def test_an_action_is_allowed_and_recorded(house: Actions) -> None:
    got = await house.check("crm_read", {"id": "7"}, "plain", x_tags="a,b")
    assert (got["decision"], got["rule"], got["hits"], got["judged"]) == (
        "allow",
        "tier:autonomous",
        [],
        True,
    )
    assert (got["run_id"], len(got["digest"])) == ("plain", 64)
    assert got["receipt"].count(".") == 2
    view = house.proxy.view(got["action_id"])
    assert (view.run_id, view.status, view.dialect, view.operation) == (
        "plain",
        Status.OK,
        "action",
        "execute_tool",
    )
    assert (view.tags, view.cost_micro_usd, view.usage, view.model) == (("a", "b"), 0, None, "")
    assert [(d.tool, d.arguments, d.decision, d.digest) for d in view.decisions] == [
        ("crm_read", '{"id": "7"}', "allow", got["digest"])
    ]
    assert view.request is not None
    assert json.loads(view.request)["tool"] == "crm_read"
    assert house.proxy.kinds(got["action_id"]) == ["call.opened", "call.verdicts", "call.closed"]
    assert got["receipt"].encode() not in view.request


@pytest.mark.parametrize(
    ("tool", "arguments", "rule"),
    [
        ("wipe", {}, "prohibited"),
        ("nothing_known", {}, "unknown-tool"),
        ("crm_read", {"id": 7}, "schema"),
        ("crm_read", '{"id": "7", "id": "8"}', "bad-args"),
        ("crm_read", "[" * 30 + "]" * 30, "bad-args"),
        ("refund", {"amount": 5}, "no-approver"),
        ("mail_send", {"to": "eve@example.com"}, "unnamed"),
    ],
)
async def test_a_denial_is_an_answer_and_no_error(
    house: Actions, tool: str, arguments: Any, rule: str
) -> None:
    got = await house.check(tool, arguments)
    assert (got["decision"], got["rule"]) == ("deny", rule)
    assert "receipt" not in got
    assert house.proxy.view(got["action_id"]).status is Status.OK


async def test_text_and_object_are_one_action_and_the_user_is_heard(house: Actions) -> None:
    one = await house.check("crm_read", {"id": "7"})
    two = await house.check("crm_read", '{ "id" : "\\u0037" }')
    assert one["digest"] == two["digest"]
    said = await house.check("mail_send", {"to": "ada@example.com"}, user_text="Write to Ada@example.com!")
    assert said["decision"] == "allow"
    assert house.proxy.view(said["action_id"]).run_inferred


async def test_tool_calls_and_writes_are_counted_and_nothing_else(house: Actions) -> None:
    answers = [await house.check("note_write", {"n": n}, "caps") for n in range(4)]
    assert [(a["decision"], a["rule"]) for a in answers] == [("allow", "tier:autonomous")] * 3 + [
        ("deny", "cap:run.writes")
    ]
    answers = [await house.check("crm_read", {"id": str(n)}, "caps") for n in range(4)]
    assert [(a["decision"], a["rule"]) for a in answers[2:]] == [
        ("allow", "tier:autonomous"),
        ("deny", "budget:gate"),
    ]
    run = await house.run("caps")
    assert (run["left"]["tool_calls"], run["left"]["requests"]) == (0, 5)
    assert run["calls"]["total"] == 8
    spent = await house.check("crm_read", {"id": "1"}, "r", FRESH_KEY)
    assert spent["rule"] == "budget:fresh"


async def test_the_same_call_counts_once_however_often_it_is_checked(house: Actions) -> None:
    asked = {"tool_call_id": "call_1"}
    answers: list[Any] = []
    for _ in range(10):
        again = (house.check("note_write", {"n": 1}, "once", **asked) for _ in range(12))
        answers += await asyncio.gather(*again)
        if len({house.proxy.writer_of(a["action_id"]) for a in answers}) == 2:
            break
    assert {(a["decision"], a["rule"], a["tool_call_id"]) for a in answers} == {
        ("allow", "tier:autonomous", "call_1")
    }
    assert len({house.proxy.writer_of(a["action_id"]) for a in answers}) == 2, "one worker answered all"
    assert (await house.run("once"))["left"]["writes"] == 3
    denied = [await house.check("wipe", {}, "once", tool_call_id="call_2") for _ in range(3)]
    assert {a["rule"] for a in denied} == {"prohibited"}
    other = await house.check("note_write", {"n": 2}, "once", **asked)
    assert other["digest"] != answers[0]["digest"]
    assert (await house.run("once"))["left"]["writes"] == 2
    lines = (await house.admin("GET", "/runs?agent=bot")).body
    assert next(line["denials"] for line in lines if line["run_id"] == "once") == 1


async def test_a_call_that_a_model_proposed_is_known_by_its_id(house: Actions) -> None:
    reply = await house.call("proposed")
    calls = reply.body["choices"][0]["message"]["tool_calls"]
    before = (await house.run("proposed"))["left"]
    for call in calls:
        function = call["function"]
        got = await house.check(function["name"], function["arguments"], "proposed", tool_call_id=call["id"])
        assert got["decision"] == "allow"
    assert (await house.run("proposed"))["left"] == before
    moved = await house.check("crm_read", {"id": "8"}, "proposed", tool_call_id=calls[0]["id"])
    assert moved["decision"] == "allow"
    assert (await house.run("proposed"))["left"]["tool_calls"] == before["tool_calls"] - 1


async def test_envelope_lists_and_trees_hold(house: Actions) -> None:
    run = await house.opened(envelope={"tools": ["crm_*"], "tool_calls": 2})
    assert (await house.check("note_write", {}, key=run["token"]))["rule"] == "envelope"
    assert (await house.check("note_write", {}, key=OTHER_KEY))["rule"] == "agent-tools"
    below = await house.check("crm_read", {"id": "1"}, "below", parent_run_id=run["run_id"])
    assert below["decision"] == "allow"
    assert house.proxy.view(below["action_id"]).parent_run_id == run["run_id"]
    by_token = await house.check("crm_read", {"id": "1"}, "tool-run", OTHER_KEY, x_run_token=run["token"])
    assert by_token["decision"] == "allow"
    assert (await house.run(run["run_id"]))["left"]["tool_calls"] == 0
    third = await house.check("crm_read", {"id": "1"}, run["run_id"])
    assert third["rule"] == f"budget:envelope:{run['run_id']}"
    await house.send("POST", f"/v1/runs/{run['run_id']}/end", {"why": "enough"})
    await asyncio.sleep(1)  # the other worker hears of it within a second
    over = await house.send("POST", "/v1/actions/check", {"tool": "crm_read"}, x_run_id="below")
    assert (over.status, over.error["code"]) == (403, "run_ended")


async def test_what_is_no_action_is_refused_in_words(house: Actions) -> None:
    cases: list[tuple[Any, int, str]] = [
        ({"arguments": {}}, 400, "`tool`"),
        ({"tool": "", "arguments": {}}, 400, "tool must be"),
        ({"tool": "x", "wait_s": 61}, 400, "wait_s must be from 0 to 60"),
        ({"tool": "x", "tool_call_id": "y" * 257}, 400, "tool_call_id must be"),
        ({"tool": "x", "arguements": {}}, 400, "arguements"),
        (b'{"tool": "a", "tool": "b"}', 400, "occurs twice"),
        (b'{"tool": "a", "arguments": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400, "no action to check"),
        ({"tool": "x", "user_text": "z" * 300_000}, 413, "over 256 KiB"),
    ]
    for body, status, said in cases:
        answer = await house.send("POST", "/v1/actions/check", body)
        assert (answer.status, said in answer.said) == (status, True), answer
    assert (await house.send("POST", "/v1/actions/check", {"tool": "x"}, key=None)).status == 401
    wanting = await house.send("POST", "/v1/actions/check", {"tool": "x"}, FRESH_KEY)
    assert (wanting.status, wanting.error["code"]) == (400, "run_required")
    assert (await house.send("GET", "/v1/actions/check")).status == 404
    assert (await house.send("POST", "/v1/actions/other", {})).status == 404


async def test_a_frozen_agent_acts_no_more(house: Actions) -> None:
    assert (await house.check("crm_read", {"id": "1"}, key=WATCHED_KEY))["decision"] == "allow"
    assert (await house.admin("POST", "/agents/watched/freeze", {"reason": "odd"})).status == 200
    await asyncio.sleep(1)
    for _ in range(4):
        answer = await house.send("POST", "/v1/actions/check", {"tool": "crm_read"}, WATCHED_KEY)
        assert (answer.status, answer.error["code"]) == (403, "agent_frozen")


async def test_the_books_add_up(house: Actions) -> None:
    await house.proxy.settled()
    with house.proxy.engine.connect() as connection:
        found = reconcile(connection, None, now_us())
    assert found.drifts == ()
    assert found.calls > 20


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, {"decision": "allow", "rule": "", "judged": False}),
        (
            {**POLICY, "policy": {"id": "s", "version": 1, "mode": "shadow"}},
            {"decision": "allow", "rule": "prohibited", "judged": True, "shadow": True},
        ),
    ],
)
async def test_without_a_policy_and_in_shadow(
    tmp_path_factory: pytest.TempPathFactory, policy: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("mode")
    async with actions_house(folder, workers=1, policy=policy) as house:
        got = await house.check("wipe", {"all": True}, tool_call_id="c")
        assert {name: got.get(name) for name in expected} == expected
        assert ("receipt" in got) == got["judged"]
        assert (await house.check("wipe", {}, key=OTHER_KEY))["rule"] == "agent-tools"
        assert (await house.check("crm_read", {}, "r", FRESH_KEY))["rule"] == "budget:fresh"
        assert KEY not in house.proxy.log()
