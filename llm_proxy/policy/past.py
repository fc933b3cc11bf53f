"""What is on record of runs, as it's judged again: results that came in, and calls that were judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from llm_proxy.policy import names
from llm_proxy.policy.context import AgentFacts, UserFacts
from llm_proxy.policy.verdict import Proposed
from llm_proxy.policy.vocabulary import Decision
from llm_proxy.records.judged import Judged as Facts
from llm_proxy.records.view import Decision as Recorded
from llm_proxy.records.view import ToolResultView

BUDGET = "budget:"
_OUTSIDE = frozenset({names.AGENT_TOOLS, names.ENVELOPE, names.SIBLING_DENIED, names.REDACTED_ARGS})

_encode = msgspec.json.Encoder().encode


class RunId(NamedTuple):
    agent_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Came:
    """Tool results that a call brought in for the first time."""

    at_us: int
    place: int
    """Among the records of its call."""
    run: RunId
    call_id: str
    results: tuple[ToolResultView, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The tool calls of one reply, with the verdicts on them."""

    at_us: int
    place: int
    run: RunId
    call_id: str
    decisions: tuple[Recorded, ...]
    agent: AgentFacts
    user: UserFacts
    env: str
    facts: Facts | None = None
    """What the verdicts rested on, where that was recorded; else as near as can be told."""

    @property
    def kept(self) -> bool:
        """Whether what was to be done is still on record: retention deletes arguments."""
        return all(decision.kept for decision in self.decisions)

    @property
    def policy(self) -> str:
        """SHA-256 of the policy that judged, empty where none did."""
        return self.decisions[0].policy if self.decisions else ""

    @property
    def now_s(self) -> float:
        """The moment of which the verdicts are, Unix seconds."""
        return (self.facts.now_us if self.facts else self.at_us) / 1e6


Event: TypeAlias = Came | Judged


def key(event: Event) -> tuple[int, str, int]:
    """By which events come in order."""
    return event.at_us, event.call_id, event.place


@dataclass(frozen=True, slots=True)
class Start:
    """How a run began, where its verdicts don't say."""

    started_s: float = 0.0
    role: str = ""


class Past(Protocol):
    """The record, as far as judging again asks for more than the events that it goes through."""

    def start(self, run: RunId) -> Start: ...

    def before(self, event: Event) -> Iterator[Event]:
        """Everything of the event's run before it, in order."""
        ...

    def user_text(self, event: Judged) -> str:
        """What the user wrote, in the messages of that call; empty where it's no longer kept."""
        ...


class Word(NamedTuple):
    """What a policy says of a call. `outside`: something else denied it, whatever the policy says."""

    decision: Decision
    rule: str
    outside: bool = False


def word(recorded: Recorded) -> Word:
    """The policy's own word: an ask is an ask, whatever became of it."""
    rule, asked = recorded.rule, recorded.hits[0] if recorded.hits else recorded.rule
    if rule.startswith(BUDGET) or rule in _OUTSIDE:
        return Word(Decision.DENY, rule, outside=True)
    if rule in names.ANSWERS:
        return Word(Decision.ASK, asked)
    return Word(Decision(recorded.decision), rule)


def proposed(recorded: Recorded) -> Proposed:
    """The call as it was judged: a freeform tool's text is the `input` of an object."""
    arguments = recorded.arguments
    if recorded.custom:
        arguments = _encode({"input": arguments}).decode()
    return Proposed(recorded.tool_call_id, recorded.tool, arguments)
