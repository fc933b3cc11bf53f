"""What a provider is: it opens one attempt at one target, and yields the reply's bytes as they come."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from routing.failures import FailureKind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a target's calls go. `address` is the host and port, for spans and listings.

    `url` is the base that paths are added to; `dialects` are those that it speaks, the preferred one first;
    `maybe` are those of them that it may turn out not to serve.
    """

    target_id: str
    provider: str
    url: str = ""
    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    script: str = ""
    api_key: str = field(default="", repr=False)
    dialects: tuple[str, ...] = ()
    maybe: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sending:
    """What goes to one target: the path below its base URL, query included, and the body.

    `headers` (lower case) stand beside the endpoint's own and win over them.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    stream: bool = False
    method: str = "POST"


@dataclass(slots=True)
class UpstreamFailure(Exception):
    """One attempt failed, classified once, where it happened.

    `detail` is in our words; `body` is the upstream's own error body, kept only to pass on a 400, 413 or 422.
    """

    kind: FailureKind
    detail: str
    status: int | None = None
    retry_after_s: float | None = None
    body: bytes | None = None
    retry_same: bool = True
    """False where the target itself said not to ask it again."""

    def __post_init__(self) -> None:
        Exception.__init__(self, self.detail)


class UpstreamReply(Protocol):
    """A reply whose status was 2xx. `chunk` gives bytes as they come, b"" at the end, or UpstreamFailure."""

    streamed: bool
    """Whether the body is an event stream."""
    status: int
    content_type: str
    """The header's whole value, empty where there is none."""
    headers: Mapping[str, str]
    """The upstream's headers, whatever the case of their names."""
    dropped: tuple[str, ...]
    """What of the request this provider could not be told."""

    async def chunk(self) -> bytes: ...


class Provider(Protocol):
    """Opens attempts. Leaving the context closes the connection, or gives it back where the reply ended."""

    def open(
        self, endpoint: Endpoint, sending: Sending, connect_s: float
    ) -> AbstractAsyncContextManager[UpstreamReply]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Providers by name, and endpoints by target key and by lane (the key of one API key of several).

    `absent` holds the dialects that an endpoint turned out not to serve, by target id.
    """

    providers: Mapping[str, Provider]
    endpoints: Mapping[str, Endpoint]
    absent: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    async def close(self) -> None:
        for provider in {id(provider): provider for provider in self.providers.values()}.values():
            await provider.close()
