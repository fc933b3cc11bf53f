"""What people do in the console, and what the agents that wait for it, or are in the midst of it, get."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from playwright.async_api import Browser, Route

from tests.browser.eyes import Eyes, opened
from tests.browser.stage import Stage
from tests.e2e.approvals_house import token_of
from tests.proxy import OTHER_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")
_LEFT = re.compile(r"in (?:(\d+) min )?(\d+) s")


async def _open(eyes: Eyes, run: str) -> None:
    """The approval of `run`, by its row in the queue."""
    row = eyes.page.get_by_role("row").filter(has=eyes.page.get_by_text(run, exact=True))
    await row.get_by_role("link").first.click()
    await eyes.page.get_by_role("heading", name="Exactly this would run").wait_for()


async def _decide(eyes: Eyes, word: str, reason: str) -> None:
    await eyes.page.get_by_label("Reason").fill(reason)
    await eyes.page.get_by_role("button", name=word, exact=True).click()
    await eyes.page.get_by_text(f": {reason}").wait_for()


async def test_a_person_lets_a_waiting_call_go(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin, token=token_of("dana")) as eyes:
        await eyes.look("/console/approvals")
        await eyes.page.evaluate("window.here = true")
        agent = stage.begin("A refund, please.", "live-1")
        await eyes.page.get_by_text("live-1", exact=True).wait_for()
        assert await eyes.page.evaluate("window.here"), "the page was loaded anew"
        assert "in 14 min" in await eyes.page.inner_text("#queue")
        await _open(eyes, "live-1")
        assert '"amount": 120.5' in await eyes.page.inner_text("#arguments")
        assert not agent.done()
        await _decide(eyes, "Approve", "The parcel came back.")
        received = await asyncio.wait_for(agent, 10)
        assert b'"refund"' in received
        assert b"120.5" in received
        assert await eyes.page.locator("h1 .tag").inner_text() == "approved"
        await eyes.look("/console/approvals")
        assert await eyes.page.get_by_text("live-1", exact=True).count() == 0


async def test_a_person_says_no(stage: Stage, browser: Browser) -> None:
    agent = stage.begin("A refund, please.", "no-1")
    async with opened(browser, stage.proxy.origin, token=token_of("erin")) as eyes:
        await stage.waiting("no-1")
        await eyes.look("/console/approvals")
        await _open(eyes, "no-1")
        await eyes.page.get_by_label("Reason").press_sequentially("Wrong")
        await eyes.page.keyboard.press("Enter")
        await eyes.page.keyboard.type("customer.")
        assert await eyes.page.get_by_label("Reason").input_value() == "Wrong\ncustomer."
        await eyes.page.get_by_role("button", name="Deny", exact=True).click()
        await eyes.page.get_by_text(": Wrong customer.").wait_for()
        received = await asyncio.wait_for(agent, 10)
        assert b"120.5" not in received
        assert await eyes.page.locator("h1 .tag").inner_text() == "denied"


async def test_two_people_let_a_payout_go(stage: Stage, browser: Browser) -> None:
    agent = stage.begin("A payout, please.", "two-1")
    await stage.waiting("two-1")
    origin = stage.proxy.origin
    async with (
        opened(browser, origin, token=token_of("dana")) as dana,
        opened(browser, origin, token=token_of("erin")) as erin,
    ):
        for eyes in (dana, erin):
            await eyes.look("/console/approvals")
        await _open(dana, "two-1")
        await _decide(dana, "Approve", "Invoice checked.")
        assert await dana.page.locator("h1 .tag").inner_text() == "pending"
        await erin.page.get_by_text("1 of 2: dana@example.com").wait_for()
        assert not agent.done()
        await _open(erin, "two-1")
        assert "Invoice checked." in await erin.page.inner_text("main")
        await _decide(erin, "Approve", "Account checked.")
        assert b"DE89" in await asyncio.wait_for(agent, 10)


LIVE = "**/approvals/live"


def _forgiven(eyes: Eyes, *words: str) -> None:
    """What the browser complains of where an answer was meant to be wrong."""
    assert eyes.wrong
    eyes.wrong[:] = [said for said in eyes.wrong if not any(word in said for word in words)]


async def test_what_is_asked_before_the_queue_is_live_appears(stage: Stage, browser: Browser) -> None:
    async def late(route: Route) -> None:
        await stage.waiting("gap-1")
        await route.continue_()

    async with opened(browser, stage.proxy.origin, token=token_of("dana")) as eyes:
        await eyes.page.route(LIVE, late)
        await eyes.look("/console/approvals")
        link = eyes.page.locator("#queue").get_by_role("link").first
        await link.focus()
        on = await link.get_attribute("href")
        agent = stage.begin("A refund, please.", "gap-1")
        await eyes.page.get_by_text("gap-1", exact=True).wait_for()
        assert await eyes.page.evaluate("document.activeElement.getAttribute('href')") == on
        await eyes.page.get_by_role("status").get_by_text("1 new approval", exact=True).wait_for()
        within = "document.querySelector('[data-left]').closest('[aria-live], [role=status]')"
        assert await eyes.page.evaluate(within) is None, "a countdown is read out each second"
        agent.cancel()


async def test_a_queue_that_is_not_live_says_so_and_tries_again(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin, token=token_of("dana")) as eyes:
        await eyes.page.clock.install()
        await eyes.page.route(LIVE, lambda route: route.fulfill(status=503))
        await eyes.look("/console/approvals")
        await eyes.page.get_by_role("status").get_by_text("Not live just now").wait_for()
        await eyes.page.unroute(LIVE)
        await eyes.page.clock.fast_forward(11_000)
        await eyes.page.get_by_text("Not live just now").wait_for(state="detached")
        _forgiven(eyes, "status of 503")


async def test_a_queue_whose_session_is_over_leads_to_signing_in(stage: Stage, browser: Browser) -> None:
    async def signed_out(route: Route) -> None:
        await eyes.page.context.clear_cookies()
        await route.continue_()

    async with opened(browser, stage.proxy.origin, token=token_of("dana")) as eyes:
        await eyes.page.route(LIVE, signed_out)
        await eyes.look("/console/approvals")
        await eyes.page.get_by_label("Token").wait_for()
        _forgiven(eyes, "MIME type")


async def test_what_is_left_is_told_by_the_servers_clock(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin, token=token_of("dana")) as eyes:
        id_ = await stage.waiting("ticket-4713")
        expires_s = await stage.expires_s("ticket-4713")
        fast = (time.time() + 20 * 60) * 1000
        await eyes.page.clock.set_system_time(fast)
        row = eyes.page.get_by_role("row").filter(has=eyes.page.get_by_text("ticket-4713", exact=True))
        for path, within in (("", row), (f"/{id_}", eyes.page)):
            await eyes.look("/console/approvals" + path)
            assert await eyes.page.evaluate("Date.now()") >= fast
            told = await within.locator("[data-left]").first.inner_text()
            found = _LEFT.fullmatch(told)
            assert found is not None, told
            left_s = int(found[1] or 0) * 60 + int(found[2])
            assert abs(left_s - (expires_s - time.time())) < 60, told


async def test_a_freeze_ends_an_open_stream(stage: Stage, browser: Browser) -> None:
    stream = stage.begin("Write a novel.", "novel-1", key=OTHER_KEY)
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look("/console/agents/other")
        await eyes.page.get_by_text("Freeze this agent").click()
        await eyes.page.get_by_label("Reason").fill("It writes novels.")
        assert not stream.done()
        await eyes.page.get_by_role("button", name="Freeze", exact=True).click()
        await eyes.page.get_by_text("It writes novels.").wait_for()
        received = await asyncio.wait_for(stream, 10)
        assert b"dark" in received
        assert b"agent_frozen" in received
        assert b"agent_frozen" in await stage.say("hello", "novel-2", key=OTHER_KEY)
        await eyes.look("/console")
        frozen = eyes.page.locator(".card").filter(has_text="Agents frozen")
        assert "1" in await frozen.inner_text()
        await eyes.look("/console/agents/other")
        await eyes.page.get_by_label("Reason").fill("It promised.")
        await eyes.page.get_by_role("button", name="Thaw").click()
        await eyes.page.get_by_text("Freeze this agent").wait_for()
    assert b"Done." in await stage.say("hello", "novel-3", key=OTHER_KEY)
