"""Every page with something on it, as a person's browser shows it: light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Route

from tests.browser.eyes import NARROW, WIDE, Eyes, Scheme, opened
from tests.browser.stage import ALLOWING, PAGES, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

OVERLAPPING = """selectors => {
  const boxes = [...document.querySelectorAll(selectors)].map(e => [e, e.getBoundingClientRect()])
    .filter(([, box]) => box.width && box.height);
  const found = [];
  boxes.forEach(([one, a], at) => boxes.slice(at + 1).forEach(([two, b]) => {
    if (one.contains(two) || two.contains(one)) return;
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 1) found.push(`${one.textContent.trim()} / ${two.textContent.trim()}`);
  }));
  return found;
}"""
"""Texts of those elements that stand on one another."""
APART = (
    ".top .brand, .top nav a, .who span, .who button",
    "main > .card, main > h1, main > h2, main > form, .cards > .card, main > p",
    ".filters label, .filters button",
    "[data-plot] .legend, [data-plot] .xtick text, [data-plot] .ytick text",
)
FOCUSED = "document.activeElement.getAttribute('href') || document.activeElement.name"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


async def _is_well_made(eyes: Eyes, name: str) -> None:
    wide, room = await eyes.page.evaluate(WIDTHS)
    assert wide <= room, f"{name} scrolls sideways: {wide} in {room}"
    for selectors in APART:
        assert await eyes.page.evaluate(OVERLAPPING, selectors) == [], name
    found = (await Axe().run(eyes.page)).response
    assert found["passes"], "axe looked at nothing"
    serious = [said for said in found["violations"] if said["impact"] in ("serious", "critical")]
    assert serious == [], name
    assert eyes.wrong == [], name


@pytest.mark.parametrize("width", [WIDE, NARROW, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_well_made(stage: Stage, browser: Browser, scheme: Scheme, width: int) -> None:
    origin = stage.proxy.origin
    async with opened(browser, origin, scheme, width, token=None) as eyes:
        await eyes.look("/console/signin")
        await _is_well_made(eyes, "sign-in")
        await eyes.sign_in()
        approval = f"/console/approvals/{await stage.waiting('ticket-4713')}"
        for name, path in {**PAGES, "approval": approval}.items():
            await eyes.look(path)
            await _is_well_made(eyes, name)


async def test_axe_would_say_so(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.page.evaluate("document.querySelector('main').append(document.createElement('input'))")
        found = (await Axe().run(eyes.page)).response["violations"]
        assert [said["id"] for said in found if said["impact"] == "critical"] == ["label"]


async def test_a_link_that_is_shared_leads_there_after_signing_in(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin, token=None) as eyes:
        eyes.may_be_refused = True
        await eyes.page.goto(stage.proxy.origin + PAGES["run"])
        await eyes.page.get_by_label("Token").fill("dana-token-0123456789")
        await eyes.page.keyboard.press("Enter")
        await eyes.page.get_by_text("dana@example.com lacks a role").wait_for()
    async with opened(browser, stage.proxy.origin, token=None) as eyes:
        await eyes.page.goto(stage.proxy.origin + PAGES["run"])
        await eyes.page.get_by_label("Token").fill("ivan-token-0123456789")
        await eyes.page.keyboard.press("Enter")
        await eyes.page.get_by_role("heading", name="Run ticket-4711").wait_for()


async def test_a_run_is_told_as_a_story(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look("/console/runs?user=carl@example.com")
        assert "nightly-0" not in await eyes.page.inner_text("main")
        await eyes.page.get_by_role("link", name="ticket-4711", exact=True).click()
        calls = await eyes.texts("article")
        assert len(calls) == 3
        assert "The order stands in the CRM" in calls[0]
        assert "Where is my order" in calls[0]
        assert "Where is my order" not in calls[1], "what was said before is told again"
        assert "sent" in calls[1]
        said, received = await eyes.texts("article:nth-of-type(3) .beside > section")
        assert "everyone@example.com" in said
        assert said.count("differs") == 2, "the words and the call are marked"
        assert received.count("differs") == 1
        assert "deny" in said
        assert "everyone@example.com" not in received
        assert "was denied by rule 'prohibited'" in received
        await eyes.page.get_by_role("button", name="Copy run id").click()
        await eyes.page.get_by_role("button", name="Copy run id").get_by_text("Copied").wait_for()
        await eyes.page.get_by_role("status").get_by_text("Copied").wait_for(state="attached")
        assert await eyes.page.evaluate("navigator.clipboard.readText()") == "ticket-4711"
        await eyes.page.get_by_role("link", name="ticket-4711-sum").first.click()
        await eyes.page.get_by_role("link", name="ticket-4711", exact=True).wait_for()


async def test_nothing_offers_to_copy_where_the_browser_wont(stage: Stage, browser: Browser) -> None:
    """As over http, on another host than localhost."""
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["run"])
        buttons = eyes.page.get_by_role("button", name="Copy")
        assert await buttons.count() > 3
        await eyes.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        await eyes.look(PAGES["run"])
        assert await buttons.count() == 0


IN_VIEW = """id => {
  const { top } = document.getElementById(id).getBoundingClientRect();
  return 0 <= top && top < 900;
}"""


async def test_a_call_is_gone_to_though_its_page_comes_later(stage: Stage, browser: Browser) -> None:
    answers: list[int] = []

    async def later(route: Route) -> None:
        """At first a page that says so, then the page itself."""
        real = await route.fetch()
        while real.status == 202:  # it's made anew where the proxy itself puts it off
            real = await route.fetch()
        page, told = await real.text(), dict(real.headers)
        if not answers:
            begin, end = page.index("<main"), page.index("</main>")
            page, told = page[:begin] + "<main><p data-later>One moment" + page[end:], told | {"refresh": "1"}
        answers.append(200 if answers else 202)
        await route.fulfill(status=answers[-1], headers=told, body=page)

    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look("/console/search?q=newsletter")
        link = eyes.page.locator("a[href*='#call-']").first
        call = (await link.get_attribute("href") or "").partition("#call-")[2]
        await eyes.page.route("**/console/runs/**", later)
        await link.click()
        await eyes.page.get_by_text("One moment").wait_for()
        await eyes.page.get_by_role("heading", name="What happened").wait_for()
        # It's scrolled to smoothly.
        await eyes.page.wait_for_function(IN_VIEW, arg=f"call-{call}")
        assert await eyes.page.evaluate("scrollY > 0")
        assert answers == [202, 200]


async def test_what_happened_beside_calls_stands_at_its_time(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["run-approved"])
        told = await eyes.texts("article h3, .between")
        marks = [
            *("1. m", "A person was asked about refund", "approved refund by dana@example.com: It's due."),
            *("event human-checkpoint by dana@example.com", "executed refund, as it was approved"),
            "effect refund https://pay.example/refunds/4710",
            *("Run ticket-4710-note of bot", "level 2: Run ticket-4710-file of bot", "2. m"),
        ]
        assert len(told) == len(marks)
        assert all(mark in text for mark, text in zip(marks, told, strict=True)), told
        rows = await eyes.texts(".waterfall li")
        assert len(rows) == len(marks)
        assert "$" in rows[0]
        assert "↳ ticket-4710-file" in rows[7]
        bars = await eyes.page.eval_on_selector_all(
            ".waterfall rect:first-child", "all => all.map(one => +one.getAttribute('x'))"
        )
        assert bars[0] == 0
        assert bars == sorted(bars)
        await eyes.page.get_by_role("button", name="Copy a link").click()
        link = await eyes.page.evaluate("navigator.clipboard.readText()")
        assert link == stage.proxy.origin + PAGES["run-approved"]
        async with eyes.page.expect_download() as started:
            await eyes.page.get_by_role("link", name="Export with the runs below").click()
        file = await (await started.value).path()
        text = await asyncio.to_thread(Path(file).read_text)
        assert "ticket-4710-file" in text
        assert "And file it." in text


async def test_times_are_told_in_the_viewers_zone(stage: Stage, browser: Browser) -> None:
    context = await browser.new_context(timezone_id="Asia/Kolkata")
    eyes = Eyes(await context.new_page(), stage.proxy.origin)
    await eyes.sign_in()
    await eyes.look(PAGES["runs"])
    times = await eyes.texts("time")
    assert len(times) > 5
    assert all("GMT+5:30" in text for text in times)
    await context.close()
    assert eyes.wrong == []


@pytest.mark.parametrize(
    ("link", "asked"),
    [("Download as CSV", ["--by", "day,agent", "--format", "csv"]), ("as FOCUS", ["--format", "focus"])],
)
async def test_a_download_is_what_the_command_line_writes(
    stage: Stage, browser: Browser, tmp_path: Path, link: str, asked: list[str]
) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["spend"])
        async with eyes.page.expect_download() as started:
            await eyes.page.get_by_role("link", name=link).click()
        await (await started.value).save_as(tmp_path / "spend.csv")
    command = ["spend", *asked, "--since", "30d", "--config", str(stage.folder / "proxy.yaml")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", *command), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    assert told.count(b"\n") > 2
    assert (tmp_path / "spend.csv").read_bytes() == told


async def test_another_policy_is_tried_on_what_was_recorded(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["policy"])
        await eyes.page.get_by_role("link", name="Try another policy").click()
        await eyes.page.get_by_label("Policy, as YAML").fill("tools: [")
        await eyes.page.get_by_role("button", name="Try it").click()
        await eyes.page.get_by_role("heading", name="The policy can't be used").wait_for()
        await eyes.page.get_by_label("Policy, as YAML").fill(ALLOWING)
        await eyes.page.get_by_role("button", name="Try it").click()
        row = eyes.page.get_by_role("row").filter(has_text="mail_send")
        await row.get_by_text("deny").wait_for()
        assert "allow" in await row.inner_text()
        assert await eyes.page.get_by_label("Policy, as YAML").input_value() == ALLOWING
        await _is_well_made(eyes, "simulated")


async def test_the_evidence_is_verified_while_one_watches(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["search"])
        await eyes.look(PAGES["audit"])
        assert "calls search: order" in (await eyes.texts("table"))[-1]
        await eyes.page.get_by_role("button", name="Verify").click()
        await eyes.page.get_by_text("Intact.").wait_for()
        assert await eyes.page.get_by_role("button", name="Verify").is_enabled()
        await _is_well_made(eyes, "verified")


async def test_everything_is_reached_by_keyboard(stage: Stage, browser: Browser) -> None:
    async with opened(browser, stage.proxy.origin) as eyes:
        await eyes.look(PAGES["runs"])
        await eyes.page.keyboard.press("Tab")
        await eyes.page.keyboard.press("Enter")
        assert await eyes.page.evaluate("document.activeElement.id") == "content"
        seen: set[Any] = set()
        for _ in range(60):
            await eyes.page.keyboard.press("Tab")
            seen.add(await eyes.page.evaluate(FOCUSED))
        assert {"words", "agent", "decision", "since", "/console/runs/ticket-4711?agent=bot"} <= seen
