"""People list, see and decide what waits for them, by /admin and on the command line; agents never do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records import approval_bodies as bodies
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.policy_tables import run_events
from llm_proxy.records.tables import records, runs
from tests.e2e.approvals_house import ADMIN, PEOPLE, House, approvals_house, id_of, token_of
from tests.issuers import AUDIENCE, ISSUER, serving, signing_key, token
from tests.proxy import KEY, free_port, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUED_BY = signing_key("ec-1", "ES256")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with serving(ISSUED_BY) as jwks:
        identity = {
            "issuers": [{"issuer": ISSUER, "jwks": jwks.url, "audience": AUDIENCE, "algorithms": ["ES256"]}]
        }
        async with approvals_house(tmp_path_factory.mktemp("approvals"), identity=identity) as house:
            yield house


async def test_what_waits_is_listed_and_shown_with_exactly_what_would_run(house: House) -> None:
    first, second = await house.ask(run_id="listed"), await house.ask(run_id="listed")
    path = "/approvals?run=listed"
    lines = (await house.send("GET", path, "ivan")).body
    assert [line["id"] for line in lines] == [second, first]
    assert "arguments" not in lines[0]
    assert (lines[0]["status"], lines[0]["quorum"], lines[0]["approved_by"]) == ("pending", 1, [])
    assert [line["id"] for line in (await house.send("GET", f"{path}&limit=1", "dana")).body] == [second]
    assert [line["id"] for line in (await house.send("GET", f"{path}&before={second}", "dana")).body] == [
        first
    ]
    for other in ("agent=other", "status=approved", "status=expired"):
        assert (await house.send("GET", f"{path}&{other}", "dana")).body == []
    shown = await house.show(first)
    assert shown["arguments"] == '{"order": "4711", "amount": 120.50}'
    assert (shown["owner"], shown["tool"], shown["risk"], shown["effect"]) == (
        "finance",
        "refund_create",
        "high",
        "write",
    )
    assert shown["approvers"] == ["group:leads"]
    assert shown["may_approve"] == [id_of(name) for name in ("dana", "erin", "adam")]
    assert (shown["digest"], shown["user_id"], shown["used"]) == ("d" * 64, "carl@example.com", 0)


async def test_one_approves_and_everybody_later_is_told_how_it_stands(house: House) -> None:
    id_ = await house.ask(quorum=1)
    answer = await house.decide(id_, "dana", reason="checked with the customer")
    assert (answer.status, answer.body["status"]) == (200, "approved")
    assert answer.body["approved_by"] == [id_of("dana")]
    assert answer.body["valid_until_us"] == answer.body["decided_us"] + 300_000_000
    [vote] = answer.body["votes"]
    assert (vote["decision"], vote["reason"], vote["via"]) == (
        "approve",
        "checked with the customer",
        "admin",
    )
    for who in ("erin", "dana", "admin"):
        for word in ("approve", "deny"):
            late = await house.decide(id_, who, word)
            assert (late.status, late.code) == (409, "conflict")
            assert "approved" in late.said
    found = _recorded(house, id_)
    assert [kind for kind, _ in found] == ["approval.requested", "approval.voted", "approval.decided"]
    decided = bodies.read_decided(found[2][1])
    assert (decided.status, decided.by) == ("approved", (id_of("dana"),))


async def test_two_people_approve_and_one_of_them_twice_does_not(house: House) -> None:
    id_ = await house.ask(quorum=2)
    assert (await house.decide(id_, "dana")).body["status"] == "pending"
    again = await house.decide(id_, "dana")
    assert (again.status, again.code) == (409, "conflict")
    assert "already" in again.said
    done = await house.decide(id_, "erin")
    assert (done.body["status"], done.body["approved_by"]) == ("approved", [id_of("dana"), id_of("erin")])


async def test_many_at_once_are_counted_once_each(house: House) -> None:
    id_ = await house.ask(quorum=3)
    answers = await asyncio.gather(*(house.decide(id_, who) for who in ("dana", "erin", "adam") * 4))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [409] * 9
    shown = await house.show(id_)
    assert (shown["status"], len(shown["votes"])) == ("approved", 3)


async def test_one_denies_and_that_is_that(house: House) -> None:
    id_ = await house.ask(quorum=2)
    await house.decide(id_, "dana")
    denied = await house.decide(id_, "erin", "deny", "not this month")
    assert (denied.status, denied.body["status"]) == (200, "denied")
    late = await house.decide(id_, "adam")
    assert (late.status, "denied" in late.said) == (409, True)


async def test_what_nobody_decided_in_time_has_expired(house: House) -> None:
    id_ = await house.ask(run_id="late", lasts_s=-1)
    assert (await house.show(id_))["status"] == "expired"
    assert [
        a["id"] for a in (await house.send("GET", "/approvals?run=late&status=expired", "dana")).body
    ] == [id_]
    late = await house.decide(id_, "dana")
    assert (late.status, late.code, "expired" in late.said) == (409, "conflict", True)


async def test_who_is_not_asked_may_not_decide(house: House) -> None:
    id_ = await house.ask()
    for who in ("frank", "boss"):
        answer = await house.decide(id_, who)
        assert (answer.status, answer.code) == (403, "forbidden_role")
        assert "group:leads" in answer.said
    named = await house.ask(approvers=json.dumps([id_of("frank")]))
    assert (await house.decide(named, "frank")).body["status"] == "approved"
    assert (await house.show(id_))["votes"] == []


async def test_nobody_approves_their_own_request_however_it_is_spelt(house: House) -> None:
    id_ = await house.ask(user_id="Dana@Example.com")
    answer = await house.decide(id_, "dana")
    assert (answer.status, answer.code) == (403, "forbidden_role")
    assert (await house.show(id_))["status"] == "pending"


async def test_the_admin_token_breaks_the_glass_and_the_record_says_so(house: House) -> None:
    id_ = await house.ask()
    answer = await house.decide(id_, "admin", reason="all approvers are ill")
    assert answer.body["status"] == "approved"
    voted = bodies.read_voted(_recorded(house, id_)[1][1])
    assert (voted.operator, voted.reason) == ("admin_token", "all approvers are ill")


@pytest.mark.parametrize("reason", ["x" * 501, "two\nlines", "\u202eback"])
async def test_a_reason_that_can_not_be_recorded_is_refused(house: House, reason: str) -> None:
    id_ = await house.ask()
    answer = await house.decide(id_, "dana", reason=reason)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert (await house.show(id_))["votes"] == []


async def test_what_is_not_there_and_what_is_no_word(house: House) -> None:
    unknown = await house.decide("apr_nothing", "dana")
    assert (unknown.status, unknown.code) == (404, "not_found")
    id_ = await house.ask()
    wrong = await house.send("POST", f"/approvals/{id_}/approve", "dana", {"reson": "x"})
    assert (wrong.status, wrong.code) == (400, "invalid_request")


async def test_only_people_with_the_roles_come_in_and_no_credential_of_an_agent(house: House) -> None:
    id_ = await house.ask(run_id="guarded")
    routes = {
        ("GET", "/approvals"): {"approver", "admin", "investigator"},
        ("GET", f"/approvals/{id_}"): {"approver", "admin", "investigator"},
        ("POST", f"/approvals/{id_}/approve"): {"approver", "admin"},
        ("POST", f"/approvals/{id_}/deny"): {"approver", "admin"},
        ("POST", "/runs/guarded/events"): {"approver", "admin"},
    }
    strangers = await _credentials_of_agents(house)
    for (method, path), roles in routes.items():
        body = b"none" if method == "POST" else None
        for who, (has, _) in PEOPLE.items():
            answer = await house.send(method, path, who, body and "none")
            allowed = bool(roles.intersection(has))
            assert (answer.status == 403) is not allowed, (who, method, path, answer)
        for kind, credential in strangers.items():
            answer = await house.send(method, path, credential, body and "none")
            assert answer.status in (401, 403), (kind, path)
            assert answer.code in ("forbidden_role", "invalid_credential"), (kind, path)
        assert (await house.send(method, path, None)).status == 401
    shown = await house.show(id_)
    assert (shown["status"], shown["votes"]) == ("pending", [])


async def _credentials_of_agents(house: House) -> dict[str, str]:
    issued = await house.send("POST", "/keys", "admin", {"agent_id": "bot"})
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{house.proxy.base_url}/runs", json={"purpose": "test", "run_id": "mine"}, headers=headers()
        ) as reply,
    ):
        opened = await reply.json()
    found = {
        "config key": KEY,
        "issued key": issued.body["key"],
        "run token": opened["token"],
        "jwt": token(ISSUED_BY),
    }
    for kind, credential in found.items():  # each is good where agents belong
        async with house.http.get(f"{house.proxy.base_url}/models", headers=headers(credential)) as reply:
            assert reply.status == 200, kind
    return found


async def test_a_person_says_that_a_run_was_looked_at(house: House) -> None:
    await house.ask(run_id="watched")
    wish = {"reason": "read the draft", "agent": "bot"}
    answer = await house.send("POST", "/runs/watched/events", "frank", wish)
    assert (answer.status, answer.body["event"], answer.body["by"]) == (
        200,
        "human-checkpoint",
        id_of("frank"),
    )
    status, out, _ = await house.cli(
        *("runs", "checkpoint", "watched", "--event", "second-look", "--reason", "and again", "--json"),
        token=token_of("dana"),
    )
    assert (status, json.loads(out)["event"]) == (0, "second-look")
    with house.proxy.engine.connect() as connection:
        happened = connection.execute(
            select(run_events.c.name, run_events.c.by).where(run_events.c.run_id == "watched")
        ).all()
        marks, revision = connection.execute(
            select(runs.c.marks, runs.c.revision).where(runs.c.run_id == "watched")
        ).one()
    assert sorted(happened) == [("human-checkpoint", id_of("frank")), ("second-look", id_of("dana"))]
    assert (marks & 4, revision) == (4, 2)
    for wrong in ({"reason": ""}, {"reason": "x", "event": "no such name!"}, {}):
        refused = await house.send("POST", "/runs/watched/events", "dana", wrong)
        assert (refused.status, refused.code) == (400, "invalid_request")
    missing = await house.send("POST", "/runs/nowhere/events", "dana", {"reason": "x"})
    assert missing.status == 404


async def test_the_command_line_lists_shows_and_decides(house: House) -> None:
    id_ = await house.ask('{"to": "eve\\u0040evil.example", "note": "a\\u202eb"}', run_id="by-hand", quorum=2)
    status, out, _ = await house.cli("approvals", "list", "--run", "by-hand")
    assert (status, id_ in out, "0 of 2" in out) == (0, True, True)
    status, out, _ = await house.cli("approvals", "list", "--run", "by-hand", "--limit", "1", "--json")
    assert [line["id"] for line in json.loads(out)] == [id_]
    status, out, _ = await house.cli("approvals", "show", id_)
    assert '"to": "eve@evil.example"' in out
    assert '"note": "a\\u202eb"' in out
    assert "group:leads (dana@example.com, erin@example.com, adam@example.com)" in out
    status, out, _ = await house.cli("approvals", "approve", id_, "--reason", "ok", token=token_of("dana"))
    assert (status, "1 more approval" in out) == (0, True)
    status, _, err = await house.cli("approvals", "approve", id_, token=token_of("dana"))
    assert (status, "already" in err) == (1, True)
    status, _, err = await house.cli("approvals", "approve", id_, token=token_of("frank"))
    assert (status, "not among those" in err) == (2, True)
    status, _, err = await house.cli("approvals", "approve", id_, token=KEY)
    assert (status, "agent's key opens nothing" in err) == (2, True)
    status, out, _ = await house.cli("approvals", "deny", id_, "--json", token=token_of("erin"))
    assert (status, json.loads(out)["status"]) == (0, "denied")
    status, out, err = await house.cli("approvals", "list", "--run", "by-hand")
    assert (status, out, "Nothing waits" in err) == (0, "", True)
    status, _, err = await house.cli("approvals", "show", "apr_nothing")
    assert (status, "no approval 'apr_nothing'" in err) == (1, True)


async def test_without_a_proxy_only_the_admin_token_decides(house: House) -> None:
    house.configure("offline.yaml", free_port())
    id_, run = await house.ask(run_id="offline"), "offline"
    status, _, err = await house.cli("approvals", "approve", id_, token=token_of("dana"), file="offline.yaml")
    assert (status, "acting without one takes server.admin_token" in err) == (2, True)
    status, out, err = await house.cli("approvals", "approve", id_, token=ADMIN, file="offline.yaml")
    assert (status, "approved" in out, err) == (0, True, "")
    voted = bodies.read_voted(_recorded(house, id_)[1][1])
    assert (voted.operator, voted.via) == ("admin_token", "cli-offline")
    status, _, err = await house.cli("approvals", "deny", id_, token=ADMIN, file="offline.yaml")
    assert (status, "approved" in err) == (1, True)
    status, out, _ = await house.cli(
        "runs", "checkpoint", run, "--reason", "seen", "--json", token=ADMIN, file="offline.yaml"
    )
    assert (status, json.loads(out)["by"]) == (0, "admin_token")


def _recorded(house: House, id_: str) -> list[tuple[str, bytes]]:
    """Kind and body of what is on record of an approval, in order."""
    kinds = [kind.value for kind in RecordKind if kind.value.startswith("approval.")]
    query = select(records.c.kind, records.c.body, records.c.at_us).where(records.c.kind.in_(kinds))
    with house.proxy.engine.connect() as connection:
        rows = sorted(connection.execute(query).all(), key=lambda row: (row.at_us, kinds.index(row.kind)))
    return [(row.kind, row.body) for row in rows if msgspec.json.decode(row.body)["id"] == id_]
