"""The dialects served: for each, the functions that read and write it. A new one is a row in `DIALECTS`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.chat.events import Frame
from llm_proxy.errors import ProxyError
from llm_proxy.wire.openai_chat import edit, errors, reply, request, upstream
from llm_proxy.wire.request import MessageFacts, WireRequest
from llm_proxy.wire.spans import Edit
from llm_proxy.wire.sse import SseFrame

Denied = Mapping[tuple[int, int], str]
"""(choice, call index) of each denied call → the text that stands in its place."""


class UpstreamEdits(Protocol):
    """How the body as sent on differs from the caller's: slices to replace, none where nothing changes."""

    def __call__(
        self, request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
    ) -> list[Edit]: ...


class EditFrames(Protocol):
    """What to send in place of a stream's held frames. `spoken`: choices whose text went out before."""

    def __call__(
        self, frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()
    ) -> list[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One wire format. Every function is pure; the ones that read a request raise `ProxyError`."""

    name: str
    path: str
    """Where it is served."""
    upstream_path: str
    """Where it is found below a base URL that ends in `/v1`."""
    cap_field: str
    """The key that limits completion tokens in a body which has none."""
    parse: Callable[[bytes], WireRequest]
    message_facts: Callable[[bytes], MessageFacts]
    upstream_edits: UpstreamEdits
    read_body: Callable[[bytes], Frame]
    read_frame: Callable[[SseFrame], Frame]
    edit_body: Callable[[bytes, Denied], bytes]
    edit_frames: EditFrames
    error_body: Callable[[ProxyError, str], bytes]
    error_frame: Callable[[ProxyError], bytes]
    body_type: str = "application/json"
    stream_type: str = "text/event-stream; charset=utf-8"


OPENAI_CHAT = Dialect(
    name="openai_chat",
    path="/v1/chat/completions",
    upstream_path="/chat/completions",
    cap_field="max_completion_tokens",
    parse=request.parse,
    message_facts=request.message_facts,
    upstream_edits=upstream.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    edit_body=edit.edit_body,
    edit_frames=edit.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (OPENAI_CHAT,)}
