"""Who may see what agents were told and said, and that every look at it is on record before it is taken."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records import engine as engine_module
from llm_proxy.records.content_reads import ContentRead, read_content_read
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import records
from tests.e2e.approvals_house import House, approvals_house, id_of, served
from tests.e2e.tool_policy_house import POLICY
from tests.proxy import ask, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - reasoning: The marmalade is late, so I look the customer up.
      text: Looking.
      tool_calls: [{name: crm_read, arguments: {id: C-17}}]
"""
PATHS = {
    "/runs/looked": "runs show",
    "/calls/{call}": "calls show",
    "/calls/search?q=marmalade": "calls search",
    "/policy/explain/{call}": "policy explain",
    "/runs/looked/export?content=true": "runs export",
}
LISTINGS = ("/runs", "/calls", "/agents", "/keys", "/refusals", "/spend", "/tail", "/policy")
SEES = {"ivan": True, "boss": True, "sue": False, "frank": False}
"""By name: an investigator, an admin, a spend-reader, an approver."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("reads")
    (folder / "model.yaml").write_text(SCRIPT)
    models = {"m": {"targets": [{"id": "s", "provider": "scripted", "script": str(folder / "model.yaml")}]}}
    async with approvals_house(folder, POLICY, models=models) as house:
        asked = ask("Where is my marmalade?", stream=False)
        told = headers(x_run_id="looked")
        async with house.http.post(house.proxy.url, json=asked, headers=told) as reply:
            assert reply.status == 200, await reply.text()
            house.named["call"] = reply.headers["x-call-id"]
        await until(lambda: _found(house), "the call is indexed")
        yield house


async def _found(house: House) -> bool:
    answer = await house.send("GET", "/calls/search?q=marmalade", "boss")
    return len(answer.body["hits"]) == 2


def reads(house: House) -> list[ContentRead]:
    query = select(records.c.body).where(records.c.kind == RecordKind.CONTENT_READ.value)
    with house.proxy.engine.connect() as connection:
        return [
            read_content_read(body) for body in connection.execute(query.order_by(records.c.at_us)).scalars()
        ]


async def raw(house: House, path: str, who: str) -> tuple[int, str]:
    told = {"authorization": f"Bearer {who}-token-0123456789"}
    async with house.http.get(f"{house.proxy.origin}/admin{path}", headers=told) as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize("who", SEES)
@pytest.mark.parametrize("path", PATHS)
async def test_content_is_for_some_roles_and_each_look_is_on_record(
    house: House, path: str, who: str
) -> None:
    before = len(reads(house))
    status, text = await raw(house, path.format(**house.named), who)
    new = reads(house)[before:]
    if not SEES[who]:
        assert (status, new) == (403, [])
        assert "marmalade" not in text
        return
    assert status == 200, text
    assert "marmalade" in text or "C-17" in text
    assert [(one.by, one.place, one.what) for one in new] == [(id_of(who), "admin", PATHS[path])]
    assert new[0].calls == (house.named["call"],)
    assert new[0].words == ("marmalade" if "search" in path else "")


@pytest.mark.parametrize("path", LISTINGS)
async def test_listings_hold_no_content_and_are_no_reading(house: House, path: str) -> None:
    before = len(reads(house))
    status, text = await raw(house, path, "sue")
    assert status == 200, text
    assert "marmalade" not in text
    assert "C-17" not in text
    assert len(reads(house)) == before


async def test_an_approvals_arguments_are_content_wherever_they_are_shown(house: House) -> None:
    id_ = await house.ask(run_id="asked")
    link = await _link(house, id_)
    before = len(reads(house))
    for who, status in (("sue", 403), ("frank", 200), ("ivan", 200)):
        assert (await house.send("GET", f"/approvals/{id_}", who)).status == status
    assert "4711" in (await house.page(link)).text
    assert (await house.decide(id_, "dana")).status == 200
    assert [(one.by, one.place, one.what, one.approval) for one in reads(house)[before:]] == [
        (id_of("frank"), "admin", "approvals show", id_),
        (id_of("ivan"), "admin", "approvals show", id_),
        (id_of("dana"), "link", "approvals show", id_),
        (id_of("dana"), "admin", "approvals approve", id_),
    ]


async def _link(house: House, id_: str) -> str:
    def found() -> list[str]:
        return [
            link["url"]
            for got in house.linked.taken
            if (got.body["type"], got.body["data"]["id"]) == ("approval.requested", id_)
            for link in got.body["data"]["links"]
            if link["operator"] == id_of("dana")
        ]

    await until(found, "the link is told")
    return served(house.proxy, found()[0])


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("runs", "show", "looked"),
    ("calls", "show", "{call}"),
    ("calls", "search", "marmalade"),
    ("runs", "export", "looked", "--content"),
    ("policy", "explain", "{call}"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
async def test_commands_record_that_they_show_content(house: House, command: tuple[str, ...]) -> None:
    before = len(reads(house))
    status, out, err = await house.cli(*[part.format(**house.named) for part in command])
    assert status == 0, err
    assert "marmalade" in out or "C-17" in out
    (one,) = reads(house)[before:]
    assert one.by.startswith("command line (OS user ")
    assert (one.place, one.what, one.calls) == ("cli", " ".join(command[:2]), (house.named["call"],))


async def test_a_command_that_looks_again_and_again_has_one_chain(house: House) -> None:
    command = ("runs", "tail", "tailed", "--content", "--json", "--limit", "8")
    tailing = asyncio.create_task(house.cli(*command))
    told = headers(x_run_id="tailed")

    def looked() -> bool:
        return tailing.done() or any(read.what == "runs tail" for read in reads(house))

    while not tailing.done():
        async with house.http.post(house.proxy.url, json=ask("marmalade?"), headers=told) as reply:
            assert reply.status == 200
        with suppress(AssertionError):  # it follows from its begin on, and this call may have been before
            await until(looked, "it looked", timeout_s=2)  # so slowly that its first look doesn't see enough
        await asyncio.wait({tailing}, timeout=0.2)
    status, out, err = await tailing
    assert status == 0, err
    ended = [line for line in map(json.loads, out.splitlines()) if line.get("reply")]
    query = select(records).where(records.c.kind == RecordKind.CONTENT_READ.value)
    with house.proxy.engine.connect() as connection:
        found = [(row.writer, read_content_read(row.body)) for row in connection.execute(query)]
    looks = [(writer, read.calls) for writer, read in found if read.what == "runs tail"]
    assert len(looks) > 1, "it looked only once"
    assert len({writer for writer, _ in looks}) == 1
    assert {line["call_id"] for line in ended} <= {id_ for _, calls in looks for id_ in calls}


async def test_where_the_reading_cannot_be_recorded_nothing_is_shown(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_MS", 200)
    copied = f"sqlite:///{house.folder / 'copy.db'}"
    settings = json.loads((house.folder / "cli.yaml").read_text())
    (house.folder / "copy.yaml").write_text(json.dumps(settings | {"store": copied}))
    with (
        sqlite3.connect(house.folder / "store.db") as source,
        sqlite3.connect(house.folder / "copy.db") as to,
    ):
        source.backup(to)
        to.execute("BEGIN IMMEDIATE")
        status, out, err = await house.cli("calls", "show", house.named["call"], file="copy.yaml")
    assert (status, out) == (2, "")
    assert "Content is only shown where the reading of it can be recorded" in err


async def test_an_export_holds_all_of_a_run_and_without_content_none_of_it(house: House) -> None:
    _, whole = await raw(house, "/runs/looked/export?content=true", "ivan")
    _, bare = await raw(house, "/runs/looked/export", "ivan")
    lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
    assert [line["type"] for line in lines] == ["export", "run", "call", "record", "record", "record", "end"]
    call = lines[2]
    assert json.loads(call["request"]["text"])["messages"][0]["content"] == "Where is my marmalade?"
    assert "C-17" in call["emitted"]["text"]
    assert call["decisions"][0]["rule"] == "tier:autonomous"
    assert lines[-1] == {"type": "end", "runs": 1, "calls": 1, "records": 3}
    assert len(bare.splitlines()) == len(lines)
    assert "marmalade" not in bare
    assert "C-17" not in bare


async def test_what_happens_is_followed_live(house: House) -> None:
    first = (await house.send("GET", "/tail", "sue")).body
    assert first["events"] == []
    waiting = asyncio.create_task(
        house.send("GET", f"/tail?after={first['after']}&wait_s=10&run=lively", "sue")
    )
    told = headers(x_run_id="lively")
    async with house.http.post(house.proxy.url, json=ask("marmalade!"), headers=told) as reply:
        assert reply.status == 200
    events = (await waiting).body["events"]
    kinds = [one["kind"] for one in events]
    if kinds[-1] != "call.closed":
        more = await house.send(
            "GET", f"/tail?after={(await waiting).body['after']}&wait_s=10&run=lively", "sue"
        )
        events += more.body["events"]
        kinds = [one["kind"] for one in events]
    assert kinds == ["call.opened", "call.verdicts", "call.closed"]
    assert events[1]["told"] == "crm_read allowed by tier:autonomous"
    assert "C-17" not in json.dumps(events)
    too_large = base64.urlsafe_b64encode(b'[1,{"w":%d}]' % (1 << 70)).decode()
    for wrong in ("nonsense", too_large):
        assert (await house.send("GET", f"/tail?after={wrong}", "sue")).status == 400


async def test_runs_are_listed_by_what_happened_in_them(house: House) -> None:
    async def listed(query: str) -> list[str]:
        answer = await house.send("GET", f"/runs?{query}", "sue")
        assert answer.status == 200, answer
        return [line["run_id"] for line in answer.body]

    assert "looked" in await listed("tool=crm_read&decision=allow&rule=tier:autonomous&since=1h&model=m")
    for none in (
        "tool=other",
        "decision=deny",
        "rule=other",
        "until=1h",
        "min_cost=5",
        "ended=true",
        "user=x",
    ):
        assert await listed(none + "&agent=bot&error=ok" if none == "tool=other" else none) == []
    assert "looked" in await listed("agent=bot&error=ok&min_cost=0")
    every = await listed("limit=1000")
    first = (await house.send("GET", "/runs?limit=1", "sue")).body[0]
    assert await listed(f"before={first['started_us']},{first['run_id']}") == every[1:]
    assert (await house.send("GET", "/runs?decision=maybe", "sue")).status == 400
    assert (await house.send("GET", "/runs?before=x", "sue")).status == 400
