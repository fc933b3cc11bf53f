"""The runs' page asks what `runs list` and `/admin/runs` ask, with every filter; and one run as a story."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from llm_proxy.admin.searched import no_records
from llm_proxy.cli.main import app
from llm_proxy.config.choices import Role
from llm_proxy.console.assets import Assets
from llm_proxy.console.pages import Pages
from llm_proxy.console.run_part import CALLS
from tests.console.house import ADMIN, PEOPLE, House, house
from tests.proxy import KEY, OTHER_KEY, ask, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 53
_CALL = re.compile(r'<article class="card" id="call-([^"]+)"')
_TURN = re.compile(r"Turn [0-9]+\.")
_PART = re.compile(r'href="(/console/runs/long\?agent=other&amp;after=[0-9]+)"')
_COMMAND = re.compile(r'data-copy="command">([^<]+)</code>')
_LINK = re.compile(r'href="/console/runs/([^"?/]+)\?agent=')
_FURTHER = re.compile(r'href="(/console/runs\?[^"]*before=[^"]*)"')


async def _say(house: House, text: str, run: str, key: str = KEY, **more: str) -> None:
    sent = headers(key, x_run_id=run, **more)
    async with (
        aiohttp.ClientSession() as http,
        http.post(house.proxy.url, json=ask(text), headers=sent) as reply,
    ):
        await reply.read()


async def _admin(house: House, path: str, token: str = ADMIN) -> tuple[int, Any]:
    told = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(house.proxy.origin + path, headers=told) as reply:
        return reply.status, await reply.json()


async def _command(house: House, *words: str) -> str:
    command = [*words, "--config", str(house.folder / "proxy.yaml")]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("runs")) as built:
        for number in range(MANY):
            await _say(built, f"apples {number}", f"many-{number}", OTHER_KEY)
        await _say(built, "the <refund> for apples", "refunded", x_user_id="ann@example.com")
        await _say(built, "Pears, please.", "pears", x_user_id="ben@example.com")
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                built.proxy.url, json=ask("x", model="none"), headers=headers(KEY, x_run_id="wrong")
            ) as reply,
        ):
            assert reply.status == 404

        async def indexed() -> bool:
            _, found = await _admin(built, "/admin/calls/search?q=pears")
            return bool(found["hits"]) and not found["unindexed"]

        await until(indexed, "everything is indexed")
        yield built


ASKED: dict[str, tuple[dict[str, str], set[str]]] = {
    "agent": ({"agent": "bot"}, {"refunded", "pears", "wrong"}),
    "user": ({"user": "ann@example.com"}, {"refunded"}),
    "model": ({"model": "none"}, {"wrong"}),
    "tool": ({"tool": "refund"}, {"refunded"}),
    "verdict": ({"decision": "deny"}, {"refunded"}),
    "rule": ({"rule": "prohibited"}, {"refunded"}),
    "error": ({"error": "model_not_found"}, {"wrong"}),
    "cost": ({"agent": "bot", "min_cost": "0.000001"}, {"refunded", "pears"}),
    "since": ({"agent": "bot", "since": "1h"}, {"refunded", "pears", "wrong"}),
    "until": ({"agent": "bot", "until": "1h"}, set()),
    "words": ({"words": "pears"}, {"pears"}),
    "words of an agent": ({"words": "apples", "agent": "bot"}, {"refunded"}),
    "words without others": ({"words": "apples -refund", "agent": "bot"}, set()),
    "words that nobody said": ({"words": "bananas"}, set()),
    "all together": (
        {
            "agent": "bot",
            "user": "ann@example.com",
            "model": "m",
            "tool": "refund",
            "decision": "deny",
            "rule": "prohibited",
            "min_cost": "0.000001",
            "since": "1h",
            "words": "apples",
        },
        {"refunded"},
    ),
    "all but one": (
        {
            "agent": "bot",
            "user": "ben@example.com",
            "decision": "deny",
            "rule": "prohibited",
            "words": "apples",
        },
        set(),
    ),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_filter_asks_the_same_everywhere(house: House, name: str) -> None:
    asked, wanted = ASKED[name]
    async with house.browser() as browser:
        page = await browser.get(f"/console/runs?{urlencode(asked)}")
    assert page.status == 200
    assert set(_LINK.findall(page.text)) == wanted
    status, lines = await _admin(house, f"/admin/runs?{urlencode(asked)}")
    assert status == 200
    assert {line["run_id"] for line in lines} == wanted
    told = await _command(
        house, "runs", "list", "--json", *(f"--{key.replace('_', '-')}={text}" for key, text in asked.items())
    )
    assert [line["run_id"] for line in json.loads(told)] == [line["run_id"] for line in lines]


@pytest.mark.parametrize("asked", [{}, {"words": "apples", "agent": "other"}, {"agent": "other"}])
async def test_pages_keep_their_filters(house: House, asked: dict[str, str]) -> None:
    found: list[str] = []
    path = f"/console/runs?{urlencode(asked)}"
    async with house.browser() as browser:
        while path:
            page = (await browser.get(path)).text
            found += _LINK.findall(page)
            further = _FURTHER.search(page)
            path = html.unescape(further[1]) if further else ""
            assert all(f"{key}={text}" in path for key, text in asked.items() if path)
    assert len(found) == len(set(found))
    others = set() if asked else {"refunded", "pears", "wrong"}
    assert set(found) == {f"many-{number}" for number in range(MANY)} | others


async def test_words_are_for_who_may_read_content_and_on_record(house: House) -> None:
    async with house.browser(PEOPLE[Role.SPEND_READER]) as browser:
        plain = await browser.get("/console/runs")
        assert plain.status == 200
        assert 'name="words"' not in plain.text
        assert (await browser.get("/console/runs?words=pears")).status == 403
    assert (await _admin(house, "/admin/runs?words=pears", PEOPLE[Role.SPEND_READER]))[0] == 403
    async with house.browser() as browser:
        assert (await browser.get("/console/runs?words=plums")).status == 200
        assert "runs list: plums" in (await browser.get("/console/audit")).text
        assert (await browser.get("/console/runs?words=-plums")).status == 400


async def test_an_export_is_that_of_the_command_line(house: House) -> None:
    async with house.browser() as browser:
        sent = await browser.get("/console/runs/refunded?agent=bot&export=1")
    assert sent.headers["content-disposition"] == 'attachment; filename="run.jsonl"'
    told = await _command(house, "runs", "export", "refunded", "--content")
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in (sent.text, told))
    assert [line for line in ours if line["type"] == "call"] == [
        line for line in theirs if line["type"] == "call"
    ]
    assert "the <refund> for apples" in sent.text
    async with house.browser() as browser:
        assert "runs export" in (await browser.get("/console/audit")).text


async def test_an_export_is_asked_for_beside_the_id(house: House) -> None:
    """An id may be anything: nothing that stands behind it in the address is more than that."""
    for run in ("a", "a/export", ".", ".."):
        await _say(house, f"This is {run}.", run)
    async with house.browser() as browser:
        listed = await browser.get("/console/runs?agent=bot")
        for run, path in (("a", "a"), ("a/export", "a%2Fexport"), (".", ".%20"), ("..", "..%20")):
            assert f'href="/console/runs/{path}?agent=bot"' in listed.text
            page = await browser.get(f"/console/runs/{path}?agent=bot")
            assert page.headers["content-type"].startswith("text/html")
            assert f"This is {run}." in page.text
            lines = await browser.get(f"/console/runs/{path}?agent=bot&export=1")
            assert json.loads(lines.text.splitlines()[1])["run_id"] == run


async def test_a_long_run_is_told_page_by_page(house: House) -> None:
    most = CALLS + 3
    for number in range(0, most, 20):
        await asyncio.gather(
            *(_say(house, f"Turn {n}.", "long", OTHER_KEY) for n in range(number, min(most, number + 20)))
        )
    _, calls = await _admin(house, f"/admin/calls?run=long&agent=other&limit={most}")
    ids = [call["id"] for call in sorted(calls, key=lambda call: (call["started_us"], call["id"]))]
    path = "/console/runs/long?agent=other"
    async with house.browser() as browser:
        first = (await browser.get(path)).text
        later = html.unescape(_PART.findall(first)[0])
        second = (await browser.get(later)).text
        told = [_CALL.findall(page) for page in (first, second)]
        assert [set(calls) for calls in told] == [set(ids[:CALLS]), set(ids[CALLS:])]
        assert [len(calls) for calls in told] == [CALLS, 3]
        assert f"{CALLS} of {most} calls, from the 1. on" in first
        assert f"3 of {most} calls, from the {CALLS + 1}. on" in second
        assert f">{CALLS + 3}. m</a>" in second
        said = [_TURN.findall(page) for page in (first, second)]
        assert [len(turns) for turns in said] == [CALLS, 3]
        assert len({turn for turns in said for turn in turns}) == most, "each is told once"
        assert [html.unescape(one) for one in _PART.findall(second)] == [f"{path}&after=0"]
        for at, page in ((0, first), (CALLS - 1, first), (CALLS, second), (most - 1, second)):
            assert _CALL.findall((await browser.get(f"{path}&call={ids[at]}")).text) == _CALL.findall(page)
        for asked in ("call=none", f"after={most}", f"after={10**18 - 1}"):
            assert (await browser.get(f"{path}&{asked}")).status == 404
        found = (await browser.get("/console/search?q=pears")).text
        assert re.search(r'href="/console/runs/pears\?agent=bot&amp;call=([^"#]+)#call-\1"', found)


async def test_a_page_has_a_bound_whatever_was_said(house: House) -> None:
    for number in range(4):
        await _say(house, f"{number}" + "é\u202e" * 50_000, "heavy")
    async with house.browser() as browser:
        page = await browser.get("/console/runs/heavy?agent=bot")
        lines = await browser.get("/console/runs/heavy?agent=bot&export=1")
    assert page.text.count("(cut; the export has all 100,001 characters") == 4
    assert len(page.text) < 2_000_000
    assert lines.text.count("é") + lines.text.count("\\u00e9") >= 200_000


async def test_a_command_takes_any_id_for_an_id(house: House) -> None:
    await _say(house, "x", "--config=x")
    async with house.browser() as browser:
        page = (await browser.get("/console/runs/--config%3Dx?agent=bot")).text
    command = shlex.split(html.unescape(_COMMAND.findall(page)[0]))
    assert command[-2:] == ["--", "--config=x"]
    at = command.index("--")
    words = [*command[1:at], "--json", "--config", str(house.folder / "proxy.yaml"), *command[at:]]
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert json.loads(result.stdout)["run_id"] == "--config=x"


async def test_nobody_said_it_only_where_all_was_looked_at() -> None:
    pages, asked = Pages(Assets()), {"q": "x", "agent": ""}
    whole = no_records()
    part = msgspec.structs.replace(whole, complete=False, back_to="2026-11-01T00:00:00Z")
    told = [bytes(pages.show("search.html", None, found=found, asked=asked).body) for found in (whole, part)]
    assert [b"Nobody said that" in page for page in told] == [True, False]
    assert [b"Time ran out" in page for page in told] == [False, True]
