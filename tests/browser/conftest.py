"""These tests need a Chromium: they run only where `-m` names `browser`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.eyes import chromium
from tests.browser.stage import Stage, played, staged

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what stands here, and leaves it out where `-m` doesn't ask for it."""
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker("browser")
    if "browser" not in re.findall(r"\w+", config.option.markexpr or ""):
        config.hook.pytest_deselected(items=here)
        items[:] = [item for item in items if item not in set(here)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """With something on every page."""
    async with staged(tmp_path_factory.mktemp("stage")) as built:
        held = await played(built)
        try:
            yield built
        finally:
            held.cancel()
