"""What a verdict depends on besides the call and the policy: facts from the caller's own records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from llm_proxy.policy.schema import Decision, Effect


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """The agent as configured. `tools` are globs of what it may ever be given."""

    id: str
    team: str = ""
    role: str = ""
    owner: str = ""
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    tools: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class UserFacts:
    """The person on whose behalf. Unless `verified` (a JWT said so), clearance counts as the lowest."""

    id: str = ""
    role: str = ""
    clearance: str = ""
    """A sensitivity label; unknown and empty ones count as the lowest."""
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """An earlier call of the run, judged by us. `completed`: its result came back."""

    tool: str
    effect: Effect
    decision: Decision
    completed: bool
    digest: str
    at_s: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run so far. The counters are of allowed calls; `writes` counts every effect but `read`."""

    sensitivity: int = 0
    """Rank of the highest label that a result brought in."""
    untrusted: bool = False
    labels: frozenset[str] = frozenset()
    calls: int = 0
    writes: int = 0
    irreversible: int = 0
    denials: int = 0
    """Denied calls; where the history knows of more, that counts."""
    started_s: float = 0.0
    role_at_start: str = ""
    depth: int = 0
    """How many runs stand above this one."""
    history: tuple[Done, ...] = ()
    events: Mapping[str, float] = field(default_factory=dict[str, float])
    """When each named event (such as `human-checkpoint`) last happened, Unix seconds."""


@dataclass(frozen=True, slots=True)
class DayFacts:
    """The agent's counters of today, before this reply."""

    calls: int = 0
    writes: int = 0


def _nothing_said() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything one `decide` may look at. `sums` are by the id of `caps.sums`, before this reply, in the
    unit of the field."""

    agent: AgentFacts
    user: UserFacts
    run: RunFacts
    now_s: float
    day: DayFacts = DayFacts()
    sums: Mapping[str, float | Decimal] = field(default_factory=dict[str, float | Decimal])
    user_text: Callable[[], str] = _nothing_said
    """What the user wrote in this run; called at most once a decision, only where a rule asks."""
    env: str = ""
