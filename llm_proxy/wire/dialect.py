"""What a dialect is: the functions that read and write one wire format. The registry is `wire.dialects`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from llm_proxy.chat.events import Event, Frame
from llm_proxy.chat.prompt import Prompt, Written
from llm_proxy.errors import ProxyError
from llm_proxy.wire.declared import Declarations
from llm_proxy.wire.onward import Onwards
from llm_proxy.wire.request import MessageFacts, WireRequest
from llm_proxy.wire.results import ResultAt
from llm_proxy.wire.spans import Edit, Span
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


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply that is written anew says of itself beside what the model said."""

    call_id: str
    model: str
    """The model's name where the upstream reports none."""
    created: int
    """Unix seconds."""
    include_usage: bool = True
    """The caller asked for usage at the end of a stream (chat completions alone lets it choose)."""
    request: WireRequest
    """The caller's own request, some of which the Responses dialect repeats in its reply."""


class Renderer(Protocol):
    """Writes one streamed reply anew, event by event. Stateful: one per reply.

    Every failure is the stage's to report (`error_frame`): `Failed` and `Unreadable` are not rendered.
    """

    def render(self, events: Sequence[Event]) -> bytes:
        """The frames that these events come to; empty where they come to none yet."""
        ...

    def close(self) -> bytes:
        """The frames that end the stream, once every event has been rendered."""
        ...


class Signed(msgspec.Struct, frozen=True):
    """Reasoning in a request that only the provider which gave it accepts: where it stands in its message.

    `span` covers what has to go so that another provider accepts the message, a comma included.
    """

    span: Span
    seal: str
    """The signature or encrypted content."""
    carried: bool = False
    """It was made in another dialect and only travelled in this one: no provider here takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declares:
    """How requests declare tools. `read` raises `ProxyError`."""

    keys: frozenset[str]
    """The top-level keys that say something of it."""
    items: Callable[[WireRequest], list[tuple[int, bytes]]]
    """Messages that declare tools, each with its place from the end (-1)."""
    read: Callable[[WireRequest], Declarations]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What makes a dialect one side of a translation. The readers of requests raise `ProxyError`."""

    read_prompt: Callable[[WireRequest], Prompt]
    write_prompt: Callable[[Prompt], Written]
    renderer: Callable[[About], Renderer]
    render_body: Callable[[Sequence[Event], About], bytes]
    call_id: Callable[[str], str] | None = None
    """A tool call's id as this dialect's renderers spell it, where they don't take every id as it is."""
    trims_ending: bool = False
    """`write_prompt` leaves out the blank space behind words of the assistant that end a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One wire format. Every function is pure; the ones that read a request raise `ProxyError`."""

    name: str
    path: str
    """Where it is served."""
    upstream_path: str
    """Where it is found below a base URL that ends in `/v1`."""
    operation: str = "chat"
    """`gen_ai.operation.name`."""
    cap_field: str = ""
    """The key that limits completion tokens in a body which has none; empty where no key does."""
    declared: frozenset[str] = frozenset()
    """Top-level keys that cost tokens beside the messages."""
    ordered: bool = False
    """Frames mean something by their order: once one waits, all that follow wait."""
    generates: bool = True
    """Its replies hold what a model said; False for embeddings, counts and what passes through."""
    priced: bool = True
    """It costs tokens: a usd limit needs the model's price. False for counts and what passes through."""
    raw: bool = False
    """Replies are of any type and status, and pass as they come."""
    keeps: bool = False
    """A later request may name a reply by its id and go on from it."""
    inline_reasoning: bool = False
    """Servers may put reasoning inside the text, between tags."""
    parse: Callable[[bytes], WireRequest]
    message_facts: Callable[[bytes], MessageFacts]
    upstream_edits: UpstreamEdits
    read_body: Callable[[bytes], Frame]
    skim_body: Callable[[bytes], Frame | None] | None = None
    """Reads a large body without making its long texts; None where it must be read in full."""
    read_frame: Callable[[SseFrame], Frame]
    reader: Callable[[], Callable[[SseFrame], Frame]] | None = None
    """Makes a stateful reader for one stream, where single frames can't be trusted by themselves."""
    edit_body: Callable[[bytes, Denied], bytes]
    edit_frames: EditFrames
    error_body: Callable[[ProxyError, str], bytes]
    error_frame: Callable[[ProxyError], bytes]
    signed: Callable[[bytes], tuple[Signed, ...]]
    """The sealed reasoning of one message, in order; none where the dialect has no such thing."""
    results_at: Callable[[bytes], tuple[ResultAt, ...]] | None = None
    """The tool results of one message, by where they stand; None where the dialect has none."""
    unsealed: Callable[[WireRequest, Sequence[Edit]], list[Edit]] | None = None
    """What else has to change where these edits take sealed reasoning out of a request."""
    translation: Translation | None = None
    """None where the dialect is only served as it is."""
    declares: Declares | None = None
    """None where requests declare no tools."""
    onwards: Onwards | None = None
    """How one reply goes on in another; None where replies hold no calls."""
    passes: frozenset[bytes] = frozenset()
    """The caller's headers (lower case) that go upstream where the dialect stays the same."""

    def frame_reader(self) -> Callable[[SseFrame], Frame]:
        """What reads the frames of one stream, in order."""
        return self.reader() if self.reader else self.read_frame
