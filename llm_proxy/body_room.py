"""Room for the bodies of all calls of a worker: a bound on the sum, where each has a bound of its own."""

from __future__ import annotations

from llm_proxy.errors import Kind, ProxyError


class Bodies:
    """How many bytes the bodies of a worker's calls take together. Used from the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Raises `ProxyError(rate_limited)` where there is no room; whoever takes must `leave`."""
        if self.held + size > self._most:
            raise ProxyError(
                Kind.RATE_LIMITED,
                f"The requests under way hold {self._most >> 20} MiB already (server.max_bodies_mb). "
                "Nothing was sent or charged; try again shortly.",
                retry_after_s=1,
            )
        self.held += size

    def leave(self, size: int) -> None:
        self.held -= size
