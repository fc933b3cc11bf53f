"""What every test shares: how far properties search, a clean environment, a guard of the event loop."""

from __future__ import annotations

import os
from collections.abc import Iterator

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

# A developer's own proxy must not leak into the tests, nor into the servers that they start.
for _name in ("LLM_PROXY_CONFIG", "LLM_PROXY_TOKEN", "LLM_PROXY_ADMIN_TOKEN"):
    os.environ.pop(_name, None)


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Raises `blockbuster.BlockingError` where the project's own code blocks a running event loop."""
    with blockbuster_ctx(["llm_proxy", "routing", "budgets"]) as guard:
        yield guard
