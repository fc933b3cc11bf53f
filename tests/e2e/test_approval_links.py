"""An event carries a link by which one person decides once: looked at freely, and good for one word."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select, update

from llm_proxy.records.ids import now_us
from llm_proxy.records.policy_tables import approvals, links
from llm_proxy.records.tables import deliveries, records
from tests.e2e.approvals_house import ADMIN, House, approvals_house, id_of, served, token_of
from tests.proxy import KEY, until
from tests.webhook_receiver import Got, Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = json.dumps(
    {
        "</pre><script>alert(1)</script>": '"><img src=x onerror=alert(1)>',
        "note": "a\u202eb\u200b\x1b[31m'",
        "to": "eve@ex\u0430mple.com",
    },
    ensure_ascii=True,
)

LONG = json.dumps({"text": "é" * 5_000}, ensure_ascii=False)
ASKED: dict[str, dict[str, Any]] = {
    "once": {},
    "told": {"arguments": LONG, "quorum": 2},
    "secret": {},
    "two people": {"quorum": 2},
    "elsewhere": {"quorum": 2},
    "at once": {"quorum": 2},
    "first": {},
    "second": {},
    "ends": {"user_id": id_of("DANA")},
    "late": {"lasts_s": -1},
    "hostile": {
        "arguments": HOSTILE,
        "tool": "<b>x</b>",
        "why": "<i>because</i>",
        "run_id": "<run>",
        "user_id": '"><x>',
    },
}


class Form(HTMLParser):
    """The page as a browser reads it: its tags, and what its form would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.fields: dict[str, str] = {}
        self.action = ""
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(given)
        if tag == "form":
            self.action = given["action"] or ""
        if tag == "input":
            self.fields[given["name"] or ""] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with approvals_house(tmp_path_factory.mktemp("links")) as house:
        for name, more in ASKED.items():
            house.named[name] = await house.ask(**more)
        yield house


async def told(receiver: Receiver, id_: str, event: str = "approval.requested") -> Got:
    found: list[Got] = []

    def there() -> bool:
        found[:] = [g for g in receiver.taken if (g.body["type"], g.body["data"]["id"]) == (event, id_)]
        return bool(found)

    await until(there, f"{event} of {id_} arrives")
    return found[0]


async def urls(house: House, id_: str) -> dict[str, str]:
    """The link of each operator, at the proxy's own address."""
    data = (await told(house.linked, id_)).body["data"]
    return {link["operator"]: served(house.proxy, link["url"]) for link in data["links"]}


async def test_a_link_is_looked_at_twice_decides_once_and_is_over(house: House) -> None:
    id_ = house.named["once"]
    found = await urls(house, id_)
    assert set(found) == {id_of("dana"), id_of("erin")}, "only those who may decide"
    url = found[id_of("dana")]
    for page in (await house.page(url), await house.page(url)):
        assert page.status == 200
        assert (await house.show(id_))["status"] == "pending"
    form = Form((await house.page(url)).text)
    assert form.action == id_
    target = url.partition("?")[0]
    done = await house.page(target, form.fields | {"decision": "approve", "reason": "seen in\r\nthe mail"})
    assert (done.status, "Approved: refund_create may run" in done.text) == (200, True)
    shown = await house.show(id_)
    [vote] = shown["votes"]
    assert (shown["status"], vote["operator"], vote["via"], vote["reason"]) == (
        "approved",
        id_of("dana"),
        "link",
        "seen in the mail",
    )
    again = await house.page(target, form.fields | {"decision": "deny", "reason": ""})
    assert (again.status, "decided already" in again.text) == (410, True)
    assert (await house.page(url)).status == 410
    late = await house.page(found[id_of("erin")])
    assert (late.status, "Others were faster" in late.text) == (410, True)
    decided = (await told(house.plain, id_, "approval.decided")).body["data"]
    assert (decided["status"], decided["by"], decided["tool"]) == (
        "approved",
        [id_of("dana")],
        "refund_create",
    )


async def test_what_events_hold_is_for_each_webhook_as_the_config_says(house: House) -> None:
    id_ = house.named["told"]
    plain, linked = await told(house.plain, id_), await told(house.linked, id_)
    assert plain.id == linked.id
    bare, full = plain.body["data"], linked.body["data"]
    assert not {"arguments", "links"} & set(bare)
    assert len(full["arguments"].encode()) in (4_095, 4_096)
    assert LONG.startswith(full["arguments"])
    assert full["arguments_cut"] is True
    for data in (bare, full):
        assert data["command"] == f"llm-proxy approvals show {id_}"
        assert (data["tool"], data["owner"], data["risk"], data["effect"], data["rule"]) == (
            "refund_create",
            "finance",
            "high",
            "write",
            "tier:human-approval",
        )
        assert (data["quorum"], data["approvers"], data["agent_id"]) == (2, ["group:leads"], "bot")
        assert (data["why"], data["digest"], data["expires_at"][-1]) == (
            "refunds are looked at",
            "d" * 64,
            "Z",
        )


async def test_no_secret_of_a_link_is_kept_anywhere(house: House) -> None:
    id_ = house.named["secret"]
    secrets = [url.partition("token=")[2] for url in (await urls(house, id_)).values()]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    await house.page((await urls(house, id_))[id_of("dana")])
    with house.proxy.engine.connect() as connection:
        kept = [*connection.execute(select(deliveries)), *connection.execute(select(records.c.body))]
        kept += connection.execute(select(links)).all()
    for secret in secrets:
        assert secret not in repr(kept)
        assert secret not in house.proxy.log()


async def test_two_people_decide_by_their_own_links_and_none_by_two(house: House) -> None:
    id_ = house.named["two people"]
    found = await urls(house, id_)
    first = await _decide(house, found[id_of("dana")], "approve")
    assert "It takes 1 more before refund_create may run" in first
    mine = await house.decide(id_, "dana")
    assert (mine.status, "already" in mine.said) == (409, True)
    assert "Approved" in await _decide(house, found[id_of("erin")], "approve")
    assert (await house.show(id_))["approved_by"] == [id_of("dana"), id_of("erin")]


async def test_a_word_given_elsewhere_ends_the_link_too(house: House) -> None:
    id_ = house.named["elsewhere"]
    found = await urls(house, id_)
    await house.decide(id_, "dana")
    assert (await house.page(found[id_of("dana")])).status == 410
    assert "will not run" in await _decide(house, found[id_of("erin")], "deny")


async def test_many_posts_at_once_are_one_word(house: House) -> None:
    id_ = house.named["at once"]
    url = (await urls(house, id_))[id_of("dana")]
    target, _, token = url.partition("?token=")
    form = {"token": token, "decision": "approve", "reason": ""}
    pages = await asyncio.gather(*(house.page(target, form) for _ in range(8)))
    assert sorted(page.status for page in pages) == [200] + [410] * 7
    assert len((await house.show(id_))["votes"]) == 1


async def test_without_the_secret_nothing_opens_whoever_asks(house: House) -> None:
    first, second = house.named["first"], house.named["second"]
    url = (await urls(house, first))[id_of("dana")]
    target, _, token = url.partition("?token=")
    other = target.replace(first, second)
    everyone = [KEY, ADMIN, token_of("dana")]
    credentials = [{}, *({"authorization": f"Bearer {one}"} for one in everyone), {"x-api-key": KEY}]
    for shown in credentials:
        for wrong in ("", "x" * 43, token[:-1], token + "A", token.swapcase()):
            asked = await house.page(f"{target}?token={wrong}", headers=shown)
            form = {"token": wrong, "decision": "approve", "reason": ""}
            posted = await house.page(target, form, headers=shown)
            assert (asked.status, posted.status) == (404, 404), (shown, wrong)
        crossed = await house.page(other, {"token": token, "decision": "approve"}, headers=shown)
        bare = await house.page(target, {"decision": "approve"}, headers=shown)
        # as another site's form would be sent, with the secret in the address alone
        foreign = await house.page(
            url, {"decision": "approve"}, headers=shown | {"origin": "https://evil.example"}
        )
        assert (crossed.status, bare.status, foreign.status) == (404, 404, 404)
    assert (await house.page(f"{other}?token={token}")).status == 404
    for broken, status in (
        ({"token": token}, 400),
        ({"token": token, "decision": "maybe"}, 400),
        ({"token": token, "decision": "approve", "reason": "two\x1blines"}, 400),
        ({"token": token, "decision": "approve", "reason": "x" * 20_000}, 413),
        (json.dumps({"token": token, "decision": "approve"}).encode(), 400),
    ):
        assert (await house.page(target, broken)).status == status
    twice = f"token={token}&token={token}&decision=approve"
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert (await house.page(target, twice.encode(), headers=kind)).status == 404
    assert (await house.page(target, b"\xff\xfe", headers=kind)).status == 400
    for id_ in (first, second):
        assert (await house.show(id_))["votes"] == []


async def test_a_link_ends_with_its_approval_and_with_the_requester(house: House) -> None:
    id_ = house.named["ends"]
    found = await urls(house, id_)
    form = {"token": found[id_of("dana")].partition("token=")[2], "decision": "approve"}
    refused = await house.page(found[id_of("dana")].partition("?")[0], form)
    assert (refused.status, "nobody approves their own request" in refused.text) == (403, True)
    with house.proxy.engine.connect().execution_options(writes=True) as connection, connection.begin():
        past = {"expires_us": now_us() - 1}
        connection.execute(update(links).where(links.c.approval_id == id_).values(past))
        connection.execute(update(approvals).where(approvals.c.id == id_).values(past))
    page = await house.page(found[id_of("erin")])
    assert (page.status, "expired" in page.text) == (410, True)


async def test_an_event_that_comes_late_carries_no_link(house: House) -> None:
    id_ = house.named["late"]
    assert (await told(house.linked, id_)).body["data"]["links"] == []


async def test_what_an_agent_wrote_is_text_and_nothing_but_text(house: House) -> None:
    id_ = house.named["hostile"]
    page = await house.page((await urls(house, id_))[id_of("dana")])
    form = Form(page.text)
    assert set(form.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "strong", "table", "tr", "th"),
        *("td", "pre", "form", "input", "label", "textarea", "button"),
    }
    assert form.tags.count("input") == 1, "Enter in a field of one line sends the form"
    assert form.attributes <= {
        *("lang", "charset", "name", "content", "class", "method", "action", "type", "value", "maxlength"),
        *("autocomplete", "rows"),
    }
    for seen in (
        "</pre><script>alert(1)</script>",
        "onerror=alert(1)>",
        "\\u202e",
        "\\u200b",
        "\\u001b[31m'",
        "eve@ex\u0430mple.com",
        "<b>x</b>",
        "beyond ASCII",
    ):
        assert seen in form.text, seen
    assert not set("\u202e\u200b\x1b") & set(page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    for name, value in (
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ):
        assert page.headers[name] == value


async def _decide(house: House, url: str, decision: str) -> str:
    target, _, token = url.partition("?token=")
    page = await house.page(target, {"token": token, "decision": decision, "reason": ""})
    assert page.status == 200, page.text
    return page.text
