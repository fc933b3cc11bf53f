"""What a request asks beside its messages: caps, and the run and user that its body names."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.wire.faults import invalid
from llm_proxy.wire.lenient import lenient

MAX_CHOICES = 1_000
MAX_TOKENS = 2**31 - 1


class Metadata(msgspec.Struct, gc=False):
    """The keys of a request's `metadata` that are acted on."""

    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Session(msgspec.Struct, gc=False):
    session_id: str = ""


_session = lenient(_Session)


def bounded(name: str, value: int | None, most: int, least: int = 1) -> int | None:
    """`value` where it is null or within bounds. Raises `ProxyError` where not."""
    if value is None or least <= value <= most:
        return value
    raise invalid(f"{name} is {value}: send a number from {least} to {most}, or leave it out", name)


def session_of(text: str) -> str:
    """The `session_id` of a JSON object in a string; empty for any other text."""
    session = _session(text.encode()) if text.startswith("{") else None
    return session.session_id if session else ""


def run_and_user(
    metadata: Metadata | None, user: str | None, session_in: Callable[[str], str] = session_of
) -> tuple[str, str]:
    """The run and user that a body names. A user id with a session in it names only a run."""
    if metadata is None:
        return "", user or ""
    named = metadata.user_id or ""
    session = session_in(named)
    return metadata.run_id or metadata.session_id or session, user or ("" if session else named)
