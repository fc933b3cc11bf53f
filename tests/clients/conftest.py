"""A house for each module, and a run for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.house import House, open_house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("clients")) as house:
        yield house


@pytest.fixture
def run() -> str:
    """A run id that no other test has."""
    return f"run-{uuid.uuid4().hex}"
