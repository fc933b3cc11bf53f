"""Signing in by OIDC in a real browser, which keeps cookies from what another site leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser

from llm_proxy.console.oidc import COOKIE as PENDING
from llm_proxy.console.visit import COOKIE
from tests.browser.eyes import NARROW, opened
from tests.console.house import House, house
from tests.oidc_provider import Provider, providing
from tests.proxy import ORIGIN

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    """Of another site than the proxy, which is at 127.0.0.1."""
    async with providing("localhost", asks=True) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncIterator[House]:
    oidc = provider.config | {"roles": {"finance": ["spend-reader"]}}
    async with house(tmp_path_factory.mktemp("oidc"), oidc=oidc, server={"public_url": ORIGIN}) as built:
        yield built


async def test_a_person_signs_in_and_out(house: House, provider: Provider, browser: Browser) -> None:
    provider.person |= {"groups": ["finance"]}
    async with opened(browser, house.proxy.origin, token=None, width=NARROW) as eyes:
        page = eyes.page
        await page.goto(f"{house.proxy.origin}/console/runs?agent=bot")
        await page.get_by_role("link", name="Sign in with Acme SSO").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW
        found = (await Axe().run(page)).response
        assert found["passes"]
        assert [said["id"] for said in found["violations"] if said["impact"] in ("serious", "critical")] == []
        await page.get_by_role("link", name="Sign in with Acme SSO").click()
        assert page.url.startswith(f"{provider.origin}/authorize?")
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_role("heading", name="Runs").wait_for()
        assert page.url == f"{house.proxy.origin}/console/runs?agent=bot"
        await page.get_by_text("dana@example.com").wait_for()
        cookies = {
            cookie.get("name"): cookie
            for cookie in await page.context.cookies(house.proxy.origin + "/console/signin")
        }
        assert cookies.keys() == {COOKIE}, f"{PENDING} is gone"
        assert (cookies[COOKIE].get("sameSite"), cookies[COOKIE].get("httpOnly")) == ("Strict", True)
        await page.reload()
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("link", name="Sign in with Acme SSO").wait_for()
        await page.goto(f"{house.proxy.origin}/console/runs")
        await page.get_by_role("heading", name="Sign in").wait_for()
        elsewhere = f"a request elsewhere: {provider.origin}/authorize"
        eyes.wrong[:] = [said for said in eyes.wrong if not said.startswith(elsewhere)]


async def test_who_has_no_role_is_told_so(house: House, provider: Provider, browser: Browser) -> None:
    provider.reset()
    async with opened(browser, house.proxy.origin, token=None) as eyes:
        eyes.may_be_refused = True
        await eyes.page.goto(f"{house.proxy.origin}/console/signin")
        await eyes.page.get_by_role("link", name="Sign in with Acme SSO").click()
        await eyes.page.get_by_role("button", name="Continue").click()
        await eyes.page.get_by_role("heading", name="You have no role here").wait_for()
        await eyes.page.get_by_role("link", name="To the overview").click()
        await eyes.page.get_by_role("heading", name="Sign in").wait_for()
        elsewhere = f"a request elsewhere: {provider.origin}/authorize"
        eyes.wrong[:] = [said for said in eyes.wrong if not said.startswith(elsewhere)]
