"""A person's browser: Chromium on the console, with note taken of everything that goes wrong in it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request, async_playwright

from tests.browser.stage import ADMIN

Scheme = Literal["light", "dark"]
WIDE, NARROW = 1280, 390


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """Debian's, which Playwright drives but doesn't bring."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("These tests drive Chromium: install it (on Debian: apt-get install chromium).")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Eyes:
    """A page, and what a person would complain of."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list[str])
    may_be_refused: bool = False
    """The browser complains of answers of 400 and above; where they're asked for, that's no matter."""

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._failed)
        self.page.on("dialog", self._asked_back)

    def _said(self, message: ConsoleMessage) -> None:
        refused = self.may_be_refused and "the server responded with a status of 4" in message.text
        if message.type in ("error", "warning") and not refused:
            self.wrong.append(f"console {message.type}: {message.text[:500]}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.wrong.append(f"a request elsewhere: {request.url[:200]}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # that is one whose page was left, or a download
            self.wrong.append(f"a request failed: {request.url[:200]} {request.failure}")

    async def _asked_back(self, dialog: Dialog) -> None:
        self.wrong.append(f"a dialog: {dialog.message[:200]}")
        await dialog.dismiss()

    async def look(self, path: str) -> None:
        """Opens a page of the console, and waits until its plots are drawn."""
        answer = await self.page.goto(self.origin + path)
        while answer is not None and answer.status == 202:  # it's being counted
            await asyncio.sleep(0.3)
            answer = await self.page.goto(self.origin + path)
        assert answer is not None
        assert answer.status == 200, (path, answer.status)
        await self.drawn()

    async def drawn(self) -> None:
        await self.page.wait_for_load_state("load")
        if await self.page.locator("[data-plot]").count():
            await self.page.locator("[data-plot] .main-svg").first.wait_for()

    async def sign_in(self, token: str = ADMIN) -> None:
        await self.page.goto(self.origin + "/console")
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.get_by_role("button", name="Sign out").wait_for()
        await self.drawn()

    async def texts(self, selector: str) -> list[str]:
        return await self.page.locator(selector).all_inner_texts()


@asynccontextmanager
async def opened(
    browser: Browser, origin: str, scheme: Scheme = "light", width: int = WIDE, token: str | None = ADMIN
) -> AsyncGenerator[Eyes]:
    """A browser window of its own, signed in with `token`; what went wrong in it fails the test."""
    context = await browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
    )
    try:
        eyes = Eyes(await context.new_page(), origin)
        if token is not None:
            await eyes.sign_in(token)
        yield eyes
        assert eyes.wrong == []
    finally:
        await context.close()
