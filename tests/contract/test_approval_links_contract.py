"""Links to an approval and listings of approvals, over SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, insert, select

from llm_proxy import approving
from llm_proxy.approving import Rejected, Vote, Voted, Why
from llm_proxy.archive.approvals import ApprovalFilter, find_link, list_approvals, votes_of
from llm_proxy.config.schema import OperatorConfig
from llm_proxy.reactions.links import Links, hashed
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.policy_rows import ApprovalRow, LinkRow
from llm_proxy.records.policy_tables import links
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.writer import Writer
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, Job, Wrote, writing

pytest_plugins = ["tests.postgres"]

HOUR_US = 3_600_000_000
PEOPLE = [
    OperatorConfig.model_validate({"id": id_, "roles": roles, "groups": groups})
    for id_, roles, groups in (
        ("dana", ["approver"], ["leads"]),
        ("erin", ["admin"], ["leads"]),
        ("frank", ["approver"], []),
        ("ivan", ["investigator"], ["leads"]),
    )
]
EVERYBODY = tuple(person.id for person in PEOPLE)


def approval(number: int, **more: Any) -> ApprovalRow:
    given: dict[str, Any] = {
        "id": f"apr_{number:032}",
        "agent_id": "bot",
        "run_id": "run-1",
        "call_id": "call-1",
        "tool_call_id": "t",
        "user_id": "",
        "tool": "x",
        "effect": "write",
        "risk": "low",
        "arguments": "{}",
        "digest": "d",
        "schema_hash": "s",
        "policy": "p",
        "rule": "r",
        "why": "",
        "approval": "default",
        "approvers": '["group:leads", "frank"]',
        "quorum": 2,
        "uses": 1,
        "valid_us": HOUR_US,
        "requested_us": NOW,
        "expires_us": NOW + HOUR_US,
        "status": "pending",
        "uses_left": 0,
        "changed_us": NOW,
    } | more
    return ApprovalRow(**given)


async def given(writer: Writer, *rows: ApprovalRow) -> None:
    wrote = Wrote(None, Evidence(approvals=rows))
    await writer.submit(Job(lambda _: wrote))


def event(row: ApprovalRow) -> str:
    return json.dumps({"type": "approval.requested", "timestamp": "t", "data": {"id": row.id, "tool": "x"}})


def carried(body: str) -> dict[str, str]:
    told = msgspec.json.decode(body)
    assert (told["type"], told["data"]["tool"]) == ("approval.requested", "x")
    return {link["operator"]: link["url"] for link in told["data"]["links"]}


def made(engine: Engine, now: int = NOW) -> Links:
    return Links(engine, "https://llm.example.com/proxy", PEOPLE, lambda: now)


async def test_links_are_for_those_who_may_decide_and_stored_as_hashes(engine: Engine) -> None:
    row, clock = approval(1), Clock()
    async with writing(engine, clock) as writer:
        await given(writer, row)
        found = carried(made(engine).signed(event(row), EVERYBODY))
        assert list(found) == ["dana", "erin", "frank"]
        prefix = f"https://llm.example.com/proxy/approvals/{row.id}?token="
        assert all(url.startswith(prefix) for url in found.values())
        with engine.connect() as connection:
            kept = {row.operator: LinkRow(*row[:4]) for row in connection.execute(select(links))}
            token = found["dana"].removeprefix(prefix)
            link = find_link(connection, hashed(token))
        assert link is not None
        assert (link.operator, link.approval_id, link.expires_us, link.used_us) == (
            "dana",
            row.id,
            row.expires_us,
            None,
        )
        assert token not in repr(kept)
        vote = Vote(operator="dana", decision="approve", via="link", at_us=NOW)
        run = RunKey("bot", "run-1")
        other = await writer.submit(
            approving.vote(row.id, run, msgspec.structs.replace(vote, operator="erin"), NOW, hashed(token))
        )
        assert isinstance(other, Rejected)
        assert other.why is Why.LINK
        voted = await writer.submit(approving.vote(row.id, run, vote, NOW, hashed(token)))
        assert isinstance(voted, Voted)
        again = await writer.submit(approving.vote(row.id, run, vote, NOW, hashed(token)))
        assert isinstance(again, Rejected)
    assert list(carried(made(engine).signed(event(row), EVERYBODY))) == ["erin", "frank"]


@pytest.mark.parametrize("more", [{"expires_us": NOW - 1}, {"status": "denied"}, {"status": "approved"}])
async def test_what_is_over_or_unknown_has_no_links(engine: Engine, more: dict[str, Any]) -> None:
    row = approval(1, **more)
    async with writing(engine) as writer:
        await given(writer, row)
    assert carried(made(engine).signed(event(row), EVERYBODY)) == {}
    assert carried(made(engine).signed(event(approval(2)), EVERYBODY)) == {}


async def test_two_writers_count_one_word_of_one_link(engine: Engine) -> None:
    row = approval(1)
    async with writing(engine, Clock()) as one, writing(engine, Clock(NOW + 1_000)) as two:
        await given(one, row)
        url = carried(made(engine).signed(event(row), ("dana",)))["dana"]
        vote = Vote(operator="dana", decision="approve", via="link", at_us=NOW)
        jobs = [
            approving.vote(row.id, RunKey("bot", "run-1"), vote, NOW, hashed(url.partition("token=")[2]))
            for _ in range(6)
        ]
        answers = await asyncio.gather(
            *(writer.submit(job) for writer, job in zip((one, two) * 3, jobs, strict=True))
        )
    assert sum(isinstance(answer, Voted) for answer in answers) == 1
    with engine.connect() as connection:
        assert [vote.operator for vote in votes_of(connection, [row.id])[row.id]] == ["dana"]


def test_links_are_forgotten_a_day_after_their_end(engine: Engine) -> None:
    rows = [LinkRow(str(n), "apr", "dana", NOW + n * HOUR_US) for n in range(3)]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(insert(links), [row._asdict() for row in rows])
    made(engine, NOW + 25 * HOUR_US + 1).tidy()
    with engine.connect() as connection:
        assert connection.execute(select(links.c.sha256)).scalars().all() == ["2"]


async def test_approvals_are_listed_by_how_they_stand_now(engine: Engine) -> None:
    rows = [
        approval(1),
        approval(2, expires_us=NOW),
        approval(3, status="expired"),
        approval(4, status="approved", uses_left=1, agent_id="other"),
        approval(5, status="denied", run_id="run-2"),
        approval(6),
    ]
    async with writing(engine) as writer:
        await given(writer, *rows)

    def ids(limit: int = 10, **wanted: Any) -> list[int]:
        with engine.connect() as connection:
            found = list_approvals(connection, ApprovalFilter(**wanted), NOW, limit)
        return [int(row.id.removeprefix("apr_")) for row in found]

    assert ids() == [6, 5, 4, 3, 2, 1]
    assert ids(2) == [6, 5]
    assert ids(2, before=rows[4].id) == [4, 3]
    assert ids(status=ApprovalStatus.PENDING) == [6, 1]
    assert ids(status=ApprovalStatus.EXPIRED) == [3, 2]
    assert ids(status=ApprovalStatus.APPROVED) == [4]
    assert ids(status=ApprovalStatus.DENIED) == [5]
    assert ids(agent="other") == [4]
    assert ids(run="run-2") == [5]
