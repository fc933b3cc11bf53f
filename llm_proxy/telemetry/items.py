"""What the exporter is handed: calls that ended, runs that began, and what befell runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from llm_proxy.records.view import CallView


class RunRef(NamedTuple):
    """A run: its id is scoped to its agent."""

    agent_id: str
    run_id: str


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its first call, or its opening, left it. None of it ever changes."""

    ref: RunRef
    started_us: int
    parent: RunRef | None = None
    """The run that it stands below, if the store knows that one."""
    top: RunRef
    """The topmost run above it, or itself: all of the tree are one trace."""
    parent_run_id: str = ""
    """As its caller named it; a trace link and no more, where `parent` is None."""
    team: str = ""
    role: str = ""
    user_id: str = ""
    inferred: bool = False
    purpose: str = ""
    trigger: str = ""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """The tool call that a result answers: the `index`th of a choice of call `call_id`, judged at `at_us`."""

    tool_call_id: str
    tool: str
    call_id: str
    choice: int
    index: int
    at_us: int
    traceparent: str = ""
    """Of that call."""


class Befallen(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a run apart from any call: it ended, or a side effect was reported."""

    kind: str
    """`run.ended`, `run.effect` or `run.event`."""
    at_us: int
    told: Mapping[str, str]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One record that spans tell. Of `call` and `befallen` one at most is there."""

    writer: str = ""
    seq: int = 0
    """Where the record stands: with `writer`, its place in the chain."""
    call: CallView | None = None
    run: RunFacts | None = None
    """The run it belongs to, where the store knows it."""
    begins: bool = False
    """The run began with it, so that the run's own span goes along."""
    answers: tuple[Proposal, ...] = ()
    """The tool calls whose results came in with `call`."""
    befallen: Befallen | None = None

    @property
    def id(self) -> str:
        """By which a dead letter names it, at most 36 characters: a call's id, else a digest."""
        if self.call is not None:
            return self.call.id
        return f"run:{hashlib.sha256(self.place.encode()).hexdigest()[:32]}"

    @property
    def place(self) -> str:
        return f"{self.writer}/{self.seq}"

    @property
    def ref(self) -> RunRef:
        if self.call is not None:
            return RunRef(self.call.agent_id, self.call.run_id)
        return self.run.ref if self.run is not None else RunRef("", "")


class Batch(msgspec.Struct, frozen=True):
    """Items in cursor order, content included, and the cursor behind the last of them."""

    items: tuple[Item, ...]
    cursor: object


class Backlog(msgspec.Struct, frozen=True):
    """What the exporter has not passed yet, and how old the oldest of it is (Unix µs; None: nothing)."""

    count: int
    oldest_us: int | None


class SpanSource(Protocol):
    """The store's outbox. Every method blocks and is called in the exporter's thread alone."""

    def next(self, limit: int) -> Batch | None:
        """At most `limit` items after the cursor; None where there is none. The cursor stays where it is.

        May give fewer, so that a batch holds no more than about 8 MiB of content; one item at least.
        """
        ...

    def advance(self, cursor: object) -> None:
        """Moves the cursor, durably."""
        ...

    def dead_letter(self, item: Item, reason: str) -> None:
        """Notes, durably, that a span of this item was refused whole. Doing so twice changes nothing."""
        ...

    def backlog(self) -> Backlog: ...
