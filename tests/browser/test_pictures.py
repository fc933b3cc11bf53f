"""The pictures of docs/console.md: each page is there, and with LLM_PROXY_SHOTS=1 is drawn anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.browser.eyes import NARROW, WIDE, Eyes, opened
from tests.browser.stage import ALLOWING, PAGES, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 150_000
NAMES = [name for name in PAGES if " " not in name]


async def _drawn(eyes: Eyes, name: str) -> None:
    """The whole page, or as much of its top as stays small."""
    height = await eyes.page.evaluate("document.documentElement.scrollHeight")
    width = (eyes.page.viewport_size or {"width": WIDE})["width"]
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, 1_400)}
    picture = await eyes.page.screenshot(full_page=True, clip=clip)  # pyright: ignore[reportArgumentType]
    _kept(name, picture)


def _kept(name: str, picture: bytes) -> None:
    assert len(picture) < MOST_BYTES, name
    if os.environ.get("LLM_PROXY_SHOTS"):
        (DOCS / "console").mkdir(exist_ok=True)
        (DOCS / "console" / f"{name}.png").write_bytes(picture)


async def test_each_page_has_a_picture(stage: Stage, browser: Browser) -> None:
    text = (DOCS / "console.md").read_text()
    async with opened(browser, stage.proxy.origin) as eyes:
        for name in NAMES:
            await eyes.look(PAGES[name])
            if name == "simulate":
                await eyes.page.get_by_label("Policy, as YAML").fill(ALLOWING)
                await eyes.page.get_by_role("button", name="Try it").click()
                await eyes.page.get_by_role("region", name="Changes").wait_for()
            if name == "audit":
                await eyes.page.get_by_role("button", name="Verify").click()
                await eyes.page.get_by_text("Intact.").wait_for()
            await _drawn(eyes, name)
        await eyes.look(PAGES["run"])
        _kept("run-denied", await eyes.page.locator("article").last.screenshot())
        await eyes.look(f"/console/approvals/{await stage.waiting('ticket-4713')}")
        await _drawn(eyes, "approval")
    async with opened(browser, stage.proxy.origin, "dark", NARROW) as eyes:
        await eyes.look(PAGES["run"])
        await _drawn(eyes, "run-narrow-dark")
    for name in (*NAMES, "approval", "run-denied", "run-narrow-dark"):
        assert f"console/{name}.png" in text, name
        assert (DOCS / "console" / f"{name}.png").stat().st_size < MOST_BYTES, name
