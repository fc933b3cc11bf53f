"""What can't be seen of the console from outside: threads, locks, listings longer than their page."""

from __future__ import annotations

import asyncio
import pydoc
import re
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Table
from typer.testing import CliRunner

from llm_proxy.admin import run_told
from llm_proxy.cli.main import app
from llm_proxy.config.choices import Role
from llm_proxy.console import later
from llm_proxy.console.agents import KEYS, SHOWN
from llm_proxy.console.aside import THREADS, aside
from llm_proxy.records.policy_tables import approvals
from llm_proxy.records.tables import keys, runs
from tests.console.house import ADMIN, PEOPLE
from tests.console.inside import SAME, Inside, inside
from tests.proxy import KEY, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOSS = {"authorization": f"Bearer {ADMIN}"}
_TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    many = {f"agent-{number}": {"models": []} for number in range(SHOWN)}
    targets = {f"m-{n}": {"targets": [target(f"up-{n}", "http://127.0.0.1:9")]} for n in range(SHOWN + 1)}
    agents = {"bot": {"keys": [KEY], "models": ["*"]}} | many
    folder = tmp_path_factory.mktemp("inside")
    with pytest.MonkeyPatch.context() as patience:
        patience.setattr(later, "WAIT_S", 30.0)  # no page is put off, unless a test wants it
        async with inside(folder, agents=agents, models=targets, prices={}) as built:
            yield built


async def _there(browser: Any, path: str) -> Any:
    """The page, once it's there."""
    for _ in range(600):
        answer = await browser.get(path)
        if answer.status_code != 202:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} never came")


async def test_a_page_that_takes_long_comes_later(house: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "WAIT_S", 0.0)
    paths = ("", "/agents/bot", "/runs", "/search?q=x", "/runs/none", "/spend")
    async with house.browser() as browser:
        for path in paths:
            first = await browser.get(f"/console{path}")
            assert (first.status_code, first.headers.get("refresh")) == (202, "1"), path
            assert "One moment" in first.text
        for path in paths:
            answer = await _there(browser, f"/console{path}")
            assert answer.status_code == (404 if path == "/runs/none" else 200)


async def test_the_word_comes_while_every_thread_is_at_work(
    house: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "WAIT_S", 0.0)
    go_on = threading.Event()
    busy = [asyncio.ensure_future(aside(lambda: go_on.wait(30))) for _ in range(THREADS)]
    async with house.browser() as browser:
        try:
            word = await asyncio.wait_for(browser.get("/console/spend"), 20)
            assert word.status_code == 202
        finally:
            go_on.set()
        assert (await _there(browser, "/console/spend")).status_code == 200
    assert await asyncio.gather(*busy) == [True] * THREADS


async def test_one_verifies_at_a_time_in_each_process(house: Inside) -> None:
    async with house.browser() as browser:
        async with house.worker.auditing:
            for path in ("/console/audit/verify", "/admin/audit/verify", "/admin/audit/export"):
                busy = await browser.get(path, headers=BOSS)
                assert (busy.status_code, "just now" in busy.text) == (409, True), path
        assert "event: report" in (await browser.get("/console/audit/verify")).text
        assert (await browser.get("/admin/audit/verify", headers=BOSS)).json()["intact"]
    assert not house.worker.auditing.locked()


async def test_one_tries_a_policy_at_a_time_in_each_process(house: Inside) -> None:
    async with house.browser() as browser:
        token = _TOKEN.search((await browser.get("/console/policy/simulate")).text)
        assert token is not None
        form = {"token": token[1], "policy": "policy: {id: p, version: 2}\ntools: {}\n"}

        async def statuses() -> list[int]:
            here = await browser.post("/console/policy/simulate", data=form, headers=SAME)
            there = await browser.post("/admin/policy/simulate", content=form["policy"], headers=BOSS)
            return [here.status_code, there.status_code]

        with house.worker.simulating:
            assert await statuses() == [409, 409]
        assert await statuses() == [200, 200]
        wrong = await browser.post("/console/policy/simulate", data=form | {"policy": "a: ["}, headers=SAME)
        assert "The policy can't be used" in wrong.text
        hidden = await browser.post("/console/policy/simulate", data=form | {"agent": "a\0"}, headers=SAME)
        assert (hidden.status_code, "don&#39;t print" in hidden.text) == (400, True)
    assert not house.worker.simulating.locked()


def _noting(work: Any, threads: set[str]) -> Callable[..., Any]:
    def noted(*args: Any, **named: Any) -> Any:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return work(*args, **named)

    return noted


WORK = ("admin.policy_reads.read_policy", "admin.spend.spend_shown", "console.policy._plot")


@pytest.mark.parametrize("work", [*WORK, "console.approvals.caution"])
async def test_what_takes_long_is_done_beside_calls(
    house: Inside, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    threads: set[str] = set()
    monkeypatch.setattr(f"llm_proxy.{work}", _noting(pydoc.locate(f"llm_proxy.{work}"), threads))
    if work.startswith("console.approvals"):  # one that is no more than its arguments: no page comes of it
        found = SimpleNamespace(arguments='{"to": "é"}')
        monkeypatch.setattr("llm_proxy.admin.approvals.approval_shown", lambda *_: found)
    async with house.browser() as browser:
        token = _TOKEN.search((await browser.get("/console/policy/simulate")).text)
        assert token is not None
        form = {"token": token[1], "policy": "policy: {id: p, version: 2}\ntools: {}\n"}
        await browser.post("/console/policy/simulate", data=form, headers=SAME)
        for path in ("policy", "spend", "approvals/one"):
            await browser.get(f"/console/{path}")
    assert threads == {"console"}


async def test_a_decider_without_another_role_sees_only_what_waits(house: Inside) -> None:
    async with house.browser(PEOPLE[Role.APPROVER]) as browser:
        answer = await browser.get("/console")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/approvals")
        assert answer.text == ""
        assert (await browser.get("/console/approvals")).status_code == 200
    async with house.browser(PEOPLE[Role.SPEND_READER]) as browser:
        assert (await browser.get("/console")).status_code == 200


async def test_what_a_page_leaves_out_is_told(house: Inside) -> None:
    with house.worker.engine.connect().execution_options(writes=True) as connection, connection.begin():
        rows = [
            {"id": f"key-{n}", "agent_id": "bot", "sha256": str(n), "run_id": "", "created_us": n + 1}
            for n in range(KEYS + 3)
        ]
        connection.execute(keys.insert(), rows)
    async with house.browser() as browser:
        agent = (await browser.get("/console/agents/bot")).text
        assert agent.count('data-copy="key id"') == KEYS + 1, "the newest that were issued, and the config's"
        assert f"key-{KEYS + 2}<" in agent
        assert "key-2<" not in agent
        assert "3 that were issued before" in agent
        lines = (await browser.get("/admin/agents/bot", headers=BOSS)).json()
        assert (len(lines["credentials"]), lines["keys"]) == (KEYS + 4, KEYS + 4)
        agents, routes = [(await browser.get(f"/console/{name}")).text for name in ("agents", "routes")]
        assert agents.count('<a href="/console/agents/') == SHOWN
        assert f"There are more than these {SHOWN}" in agents
        assert f"There are more than these {SHOWN}" in routes


async def test_runs_and_approvals_that_arent_told_are_spoken_of(
    house: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_told, "MOST_APPROVALS", 1)
    rows = [
        _row(runs, agent_id="bot", run_id=run, parent_run_id=parent, parent_agent_id=parent and "bot")
        for run, parent in (("wide", ""), *((f"wide-{n}", "wide") for n in range(run_told.MOST_CHILDREN + 1)))
    ]
    asked = [
        _row(
            approvals,
            id=id_,
            run_id="wide",
            agent_id="bot",
            tool=id_,
            approvers="[]",
            status="denied",
            requested_us=n,
        )
        for n, id_ in enumerate(("first", "second"))
    ]
    with house.worker.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(runs.insert(), rows)
        connection.execute(approvals.insert(), asked)
    words = "Only the first 100 runs below it are told here", "Only the last 1 approvals in it are told here"
    async with house.browser() as browser:
        wide, narrow = [
            (await browser.get(f"/console/runs/{run}?agent=bot")).text for run in ("wide", "wide-0")
        ]
        assert [(word in wide, word in narrow) for word in words] == [(True, False)] * 2
        told = (await browser.get("/admin/runs/wide", headers=BOSS)).json()
        assert (told["more_children"], told["more_approvals"], len(told["children"])) == (True, True, 100)
    assert [one["tool"] for one in told["approvals"]] == ["second"]
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["runs", "show", "wide", "--config", str(house.worker.config.path)]
    )
    assert "only the first 100 runs that it started are told" in shown.stdout
    assert "only the last 1 approvals are told" in shown.stdout


def _row(table: Table, **told: Any) -> dict[str, Any]:
    """With nothing in the columns that aren't told of."""
    empty = {column.name: column.type.python_type() for column in table.c if not column.nullable}
    return empty | told


async def test_the_address_with_a_slash_leads_to_the_overview(house: Inside) -> None:
    async with house.browser() as browser:
        answer = await browser.get("/console/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")
        assert (await browser.get("/console/nothing/")).status_code == 404


@pytest.mark.parametrize(
    "path", ["/console/runs/a%41", "/console/runs/%C3%A9", "/console/runs/a%2Fb?agent=x%20y"]
)
async def test_whoever_signs_in_goes_on_to_the_very_address(house: Inside, path: str) -> None:
    async with house.browser(None) as browser:
        asked = await browser.get(path)
        assert asked.status_code == 303
        form = await browser.get(asked.headers["location"])
        to = re.search(r'name="to" value="([^"]*)"', form.text)
        assert to is not None
        sent = {"credential": ADMIN, "to": to[1].replace("&amp;", "&")}
        signed = await browser.post("/console/signin", data=sent, headers=SAME)
        assert signed.headers["location"] == path


@pytest.mark.parametrize(
    "asked",
    [
        *("min_cost=nan", "min_cost=inf", "min_cost=-1", "min_cost=1e300", "min_cost=much"),
        *("agent=%00", "agent=%1b", f"user={'x' * 257}", "since=%E2%80%AE", f"words={'x' * 1_001}"),
        f"before={'1' * 301}",
    ],
)
async def test_what_admin_doesnt_take_the_console_doesnt(house: Inside, asked: str) -> None:
    async with house.browser() as browser:
        page = await browser.get(f"/console/runs?{asked}")
        there = await browser.get(f"/admin/runs?{asked}", headers=BOSS)
    assert page.status_code == 400
    assert 400 <= there.status_code < 500


@pytest.mark.parametrize(
    "path", ["search?q=a&before=1.5", "audit?before=-1", "runs/%00", "agents/%00", f"runs/{'x' * 257}"]
)
async def test_no_page_takes_what_isnt_plain(house: Inside, path: str) -> None:
    async with house.browser() as browser:
        assert (await browser.get(f"/console/{path}")).status_code == 400


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "http://elsewhere"])
async def test_an_address_of_no_host_is_elsewhere(house: Inside, origin: str) -> None:
    async with house.browser(None) as browser:
        answer = await browser.post("/console/signin", data={"credential": ADMIN}, headers={"origin": origin})
    assert answer.status_code == 403
    assert "Nothing was done" in answer.text
