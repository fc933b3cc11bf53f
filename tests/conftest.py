"""What every test shares: how far properties search, a clean environment, a guard of the event loop."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from typing import Any

import httpx._transports.default
import httpx2._transports.default
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

# `make test` must give the same answer twice; `make soak` is for finding what it did not.
settings.register_profile("ci", derandomize=True, max_examples=60, deadline=None, print_blob=True)
settings.register_profile(
    "soak",
    max_examples=5_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

# Each SDK's client reads the system's certificates, 20 ms of CPU, to speak to a plain port of this machine.
_transports: Any
for _transports in (httpx._transports.default, httpx2._transports.default):
    _transports.create_ssl_context = functools.cache(_transports.create_ssl_context)

# A developer's own proxy must not leak into the tests, nor into the servers that they start.
for _name in ("LLM_PROXY_CONFIG", "LLM_PROXY_TOKEN", "LLM_PROXY_ADMIN_TOKEN"):
    os.environ.pop(_name, None)


# What was loaded and collected stays until the end: the collector needn't go through it for every test.
def pytest_configure() -> None:
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What soaks takes as long as it takes; anything else has the `timeout` of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Raises `blockbuster.BlockingError` where the project's own code blocks a running event loop."""
    with blockbuster_ctx(["llm_proxy", "routing", "budgets"]) as guard:
        yield guard
