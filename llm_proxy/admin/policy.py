"""Working on policies: why one said something, what another would have said, and what traffic suggests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Connection

from llm_proxy.admin.errors import NotFound
from llm_proxy.admin.reading import find_call
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.admin.when import when
from llm_proxy.archive.judged import StoredPast, Wanted
from llm_proxy.archive.learning import learn
from llm_proxy.config import AgentConfig, Config
from llm_proxy.policy.again import Again
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.context import AgentFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.explain import Explained, explained
from llm_proxy.policy.learn import Learning
from llm_proxy.policy.past import Event
from llm_proxy.policy.proposal import proposal
from llm_proxy.policy.simulate import Compared, Comparison, differing, simulated
from llm_proxy.records.times import iso
from llm_proxy.spend.rollup import DAY_US

Progress = Callable[[int, int], None]
"""Told how many calls are done, of how many."""


def silent(_done: int, _all: int) -> None:
    """No progress is told."""


class PolicyName(msgspec.Struct, frozen=True):
    id: str
    version: str
    sha256: str


class CallWhy(Explained, frozen=True, kw_only=True):
    at: str


class CallExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Every verdict that a call's replies got; more than one where the model was asked again."""

    call_id: str
    run_id: str
    agent_id: str
    policy: PolicyName
    """The one that judged again."""
    same_policy: bool
    """It is the one that judged."""
    reproduced: bool
    """Judging again comes to what is on record."""
    verdicts: tuple[CallWhy, ...]


class Simulated(Compared, frozen=True, kw_only=True):
    """What would change. `against` is null where it's compared with the record."""

    policy: PolicyName
    against: PolicyName | None
    since_us: int | None
    since_at: str | None
    calls_read: int
    complete: bool
    """False where time or calls ran out before the end."""


class SimulationWish(msgspec.Struct, frozen=True, kw_only=True):
    """Of which calls: those that began from `since` on, of an agent, of a run."""

    since: str | None = None
    until: str | None = None
    agent: str | None = None
    run: str | None = None
    limit: int = 50
    """Changes that are shown."""
    seconds: float | None = None
    """Time after which it stops where it stands."""


def explain(
    connection: Connection, config: Config, policy: Policy, call_id: str, tool_call: str | None = None
) -> CallExplanation:
    """Raises `NotFound` for a call that isn't on record, or in which no tool call was judged."""
    view = find_call(connection, call_id)
    past = _past(connection, config)
    events = past.of_call(call_id)
    if not events:
        raise NotFound(
            f"Call {call_id[:80]!r} has no verdicts: its reply proposed no tool call to be judged."
        )
    if not all(event.kept for event in events):
        raise NotFound(
            f"The arguments of call {call_id[:80]!r} are not kept, so it can't be judged again. "
            f"What was decided, and by which rule: llm-proxy calls show {call_id[:80]}"
        )
    engine = PolicyEngine(policy)
    found = [_only(explained(event, engine, past), tool_call) for event in events]
    found = [one for one in found if one.calls]
    if not found:
        raise NotFound(f"Call {call_id[:80]!r} proposed no tool call {str(tool_call)[:80]!r}.")
    return CallExplanation(
        call_id=view.id,
        run_id=view.run_id,
        agent_id=view.agent_id,
        policy=name_of(policy),
        same_policy=all(one.same_policy for one in found),
        reproduced=all(call.reproduced for one in found for call in one.calls),
        verdicts=tuple(CallWhy(**asdict(one), at=iso(one.at_us)) for one in found),
    )


def _only(found: Explained, tool_call: str | None) -> Explained:
    calls = tuple(call for call in found.calls if tool_call in (None, call.tool_call_id))
    return msgspec.structs.replace(found, calls=calls)


def simulate(
    connection: Connection | None,
    config: Config,
    new: Policy,
    wish: SimulationWish,
    now_us: int,
    old: Policy | None = None,
    progress: Progress = silent,
) -> Simulated:
    """What `new` would have said of recorded calls where the record, or `old`, says otherwise.

    Raises `Unclear` for a time that is none.
    """
    since_us = when(wish.since, now_us)
    wanted = Wanted(since_us, when(wish.until, now_us), wish.agent, wish.run)
    into = Comparison(new.file, wish.limit)
    read = _Read(progress)
    complete = True
    if connection is not None:
        past = _past(connection, config)
        if since_us is not None and any(policy.file.caps.counted for policy in (new, old) if policy):
            wanted = wanted._replace(since_us=since_us - since_us % DAY_US)
        read.whole = past.count(wanted)
        again, events = Again(PolicyEngine(new), past), past.events(wanted, read.told)
        compared = (
            simulated(events, again, into, since_us or 0)
            if old is None
            else differing(events, Again(PolicyEngine(old), past), again, into, since_us or 0)
        )
        complete = _through(compared, wish.seconds)
    return Simulated(
        **asdict(into.result()),
        policy=name_of(new),
        against=name_of(old) if old else None,
        since_us=since_us,
        since_at=maybe_iso(since_us),
        calls_read=read.done,
        complete=complete,
    )


def _through(events: Iterable[Event], seconds: float | None) -> bool:
    """Goes through all of them; False where the time was up first."""
    end = None if seconds is None else monotonic() + seconds
    return all(end is None or monotonic() < end for _ in events)


class _Read:
    """How many calls were read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done = self.whole = 0

    def told(self, done: int) -> None:
        self.done = done
        self._progress(done, self.whole)


def learned(
    connection: Connection,
    runs: Sequence[str],
    wish: SimulationWish,
    now_us: int,
    most_calls: int,
    progress: Progress = silent,
) -> tuple[str, Learning]:
    """A policy proposed from recorded calls, as YAML, and what it was learned from. Raises `Unclear`."""
    into, since_us = Learning(), when(wish.since, now_us)
    wanted = Wanted(since_us, when(wish.until, now_us), wish.agent)
    past, read = StoredPast(connection, AgentFacts, ""), _Read(progress)
    each = [wanted._replace(run=run) for run in runs] or [wanted]
    read.whole = min(most_calls, sum(map(past.count, each)))
    before = 0
    for one in each:
        before += learn(
            connection, one, into, lambda done, n=before: read.told(n + done), most_calls - before
        )
    source = f"{before:,} recorded calls"
    if runs:
        source += f" of {len(runs):,} runs"
    if since_us is not None:
        source += f" since {iso(since_us)}"
    return proposal(into, source), into


def name_of(policy: Policy) -> PolicyName:
    header = policy.file.policy
    return PolicyName(header.id, str(header.version), policy.sha256)


def _past(connection: Connection, config: Config) -> StoredPast:
    def agent(id_: str) -> AgentFacts:
        known = config.agents.get(id_) or AgentConfig()
        return AgentFacts(id_, known.team, known.role, known.owner, known.scopes, known.tools)

    return StoredPast(connection, agent, config.server.environment)
