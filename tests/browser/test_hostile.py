"""What agents, models, tools and callers say is shown as text, on every page where it stands."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from llm_proxy.admin.arguments import said, visible
from tests.browser.eyes import Eyes, opened
from tests.browser.hostile import HOSTILE, IDS, SPOKEN, TEXTS
from tests.browser.stage import Stage, staged
from tests.browser.test_pages import WIDTHS
from tests.raw_upstream import whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELEMENTS = """() => [...document.querySelectorAll([
  'script, img, iframe, object, embed, base, style, meta[http-equiv], math, foreignObject, animate',
  'a[href^="java" i], a[href^="data" i], a[href^="http" i], form[action^="http" i]',
  '[onerror], [onload], [onfocus], [onmouseover], [onbegin], [autofocus], [style]'
].join())].filter(e => !e.closest('[data-plot], #js-plotly-tester')).map(e => e.outerHTML.slice(0, 200))"""
"""What texts would make, and what stands on every page."""
OWN = ('<script src="/console/static/', '<script id="', '<style id="plotly.js-style-')


def _reply(text: str, *calls: tuple[str, str]) -> list[bytes | float]:
    """A model's answer: words, the same as reasoning, and tool calls (name, arguments)."""
    made = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, "reasoning_content": text, "tool_calls": made}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    top = {"id": "c", "object": "chat.completion", "created": 1, "model": "raw"}
    return whole(json.dumps(top | {"choices": [choice], "usage": usage}).encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="town")
async def spoken(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Every text as prompt, tool's result, reply, reasoning, name and argument of a tool; some as ids."""
    async with staged(tmp_path_factory.mktemp("hostile")) as built:
        for number, text in enumerate(TEXTS):
            run = text if text in IDS else f"run-{number}"
            user = text if text in IDS else "carl"
            tags = text.replace(",", ";") if text in IDS else "plain"
            named = text if text in SPOKEN else "crm_read"
            inside = json.dumps({"text": text[:50_000]})
            built.raw.append(_reply(text, (named, inside), ("crm_read", inside)))
            told = {"x_user_id": user, "x_tags": tags}
            await built.whole(text, run, **told)
        yield built


async def _is_harmless(eyes: Eyes, what: str) -> None:
    made = await eyes.page.evaluate(ELEMENTS)
    assert [element for element in made if not element.startswith(OWN)] == [], what
    wide, room = await eyes.page.evaluate(WIDTHS)
    assert wide <= room, f"{what}: {wide} in {room}"
    assert eyes.wrong == [], what


async def test_runs_tell_them_as_text(town: Stage, browser: Browser) -> None:
    async with opened(browser, town.proxy.origin, width=390) as eyes:
        for number, (name, text) in enumerate(HOSTILE.items()):
            run = text if text in IDS else f"run-{number}"
            await eyes.look(f"/console/runs/{quote(run, safe='')}?agent=bot")
            await _is_harmless(eyes, name)
            shown = [await pre.text_content() or "" for pre in await eyes.page.locator("pre").all()]
            seen = " ".join(said(text[:1_000]).splitlines())
            for place in (0, 1, 2):
                assert any(seen in " ".join(part.splitlines()) for part in shown[place:]), (name, place)
            if text in IDS:
                assert visible(text) in await eyes.page.inner_text("h1")
            command = await eyes.page.locator("[data-copy='command']").first.text_content() or ""
            words = shlex.split(command.removesuffix("Copy"))
            assert words == ["llm-proxy", "runs", "show", "--agent", "bot", "--", visible(run)]


LISTINGS = (
    *("", "/agents", "/agents/bot", "/runs", "/policy", "/audit"),
    *(f"/spend?by={by}" for by in ("day,user", "day,tag", "run", "tool")),
    *(f"/search?q={words}" for words in ("script", "alert", "elsewhere*")),
)


async def test_listings_tell_them_as_text(town: Stage, browser: Browser) -> None:
    async with opened(browser, town.proxy.origin) as eyes:
        for path in LISTINGS:
            await eyes.look("/console" + path)
            await _is_harmless(eyes, path)
            told = await eyes.page.inner_text("main")
            if path in ("/runs", "/spend?by=day,user", "/spend?by=tool"):
                assert HOSTILE["script"] in told
                assert HOSTILE["template"] in told


async def test_what_a_person_asks_for_is_shown_as_text(town: Stage, browser: Browser) -> None:
    async with opened(browser, town.proxy.origin) as eyes:
        eyes.may_be_refused = True
        asked = ""
        for text in (*SPOKEN, "".join(SPOKEN)):
            asked = quote(text, safe="")
            await eyes.page.goto(f"{eyes.origin}/console/search?q={asked}&agent={asked}")
            await _is_harmless(eyes, text)
        await eyes.look("/console/policy/simulate")
        await eyes.page.get_by_label("Policy, as YAML").fill("".join(SPOKEN))
        await eyes.page.get_by_role("button", name="Try it").click()
        await eyes.page.get_by_role("heading", name="The policy can't be used").wait_for()
        await _is_harmless(eyes, "simulate")
        for path in ("runs?user=", "runs?words=", "routes?model=", "spend?by=", "approvals?status=", "no/"):
            await eyes.page.goto(f"{eyes.origin}/console/{path}{asked}")
            await _is_harmless(eyes, path)


async def test_an_approval_tells_its_arguments_as_text(town: Stage, browser: Browser) -> None:
    arguments = json.dumps({"to": "".join(SPOKEN).replace("\0", "")}, ensure_ascii=False)
    town.raw.append(_reply("x", ("refund", arguments)))
    asked = asyncio.create_task(town.whole("x", "asking"))
    async with opened(browser, town.proxy.origin) as eyes:
        await eyes.look(f"/console/approvals/{await town.waiting('asking')}")
        await _is_harmless(eyes, "approval")
        assert "<script>" in await eyes.page.inner_text("#arguments")
        assert "\\u202e" in await eyes.page.inner_text("#arguments")
        assert "Holds characters beyond ASCII" in await eyes.page.inner_text("main")
    asked.cancel()
