"""Opening and ending runs: pure functions from what was decided to the job that the writer commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from llm_proxy.identity.caller import Agent
from llm_proxy.identity.issuing import NewKey, Via, issued
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import Draft, Evidence, RecordKind, RunEnd, RunOpen
from llm_proxy.records.inherited import NONE, begun_with, from_above
from llm_proxy.records.runstate import UNKNOWN, RunKey
from llm_proxy.runs import envelope as envelopes
from llm_proxy.runs.envelope import Envelope
from llm_proxy.runs.wish import Trigger

TOKEN_OUTLIVES_US = 3_600_000_000
"""How long a run's token is known after the run: it's told that the run is over, and can do nothing else."""


END_AT_ONCE = 500
"""Runs that end in one transaction."""


class RunOpened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `run.opened`. Amounts of usd are micro-dollars."""

    purpose: str
    trigger: Trigger
    envelope: Envelope
    expires_us: int
    parent_agent_id: str = ""
    parent_run_id: str = ""
    user_id: str = ""
    user_verified: bool = False
    by: str
    """The id of the key that opened it."""
    key_id: str
    """The id of its token."""


class RunEnded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `run.ended`."""

    why: str
    by: str
    """The operator's id, `admin_token`, or the id of the agent's key."""
    via: Via
    below: str = ""
    """The run that was ended, where this one ended with it."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be opened by `agent`, whose key is `by`. Its token's end is that of `token`."""

    agent: Agent
    run_id: str
    purpose: str
    trigger: Trigger
    envelope: Envelope
    started_us: int
    expires_us: int
    token: NewKey
    by: str
    parent: RunKey | None = None
    user_id: str = ""
    user_verified: bool = False


_encode = msgspec.json.Encoder().encode


def open_run(new: NewRun) -> Job:
    """The job that opens `new`; its value is False where a run of that id is there already."""
    record, key = issued(new.token, new.by, Via.RUNS)
    evidence = Evidence(records=(_opened(new), record), runs=(_row(new),), keys=(key,))

    def then(found: Found) -> Wrote:
        return Wrote(True, begun_with(evidence, found.seen or NONE)) if found.run == UNKNOWN else Wrote(False)

    return Job(then, run=RunKey(new.agent.id, new.run_id), look=from_above(new.parent))


def end_runs(asked: RunKey, unended: Sequence[RunKey], now_us: int, *, why: str, by: str, via: Via) -> Job:
    """The job that ends `unended`: the run that was `asked` for and those below it. Its value is None."""
    records: list[Draft] = []
    ends: list[RunEnd] = []
    for key in unended:
        with_ = "" if key == asked else asked.run_id
        told = f"{why} (with run {with_})" if with_ else why
        body = _encode(RunEnded(why=why, by=by, via=via, below=with_))
        records.append(Draft(RecordKind.RUN_ENDED, now_us, None, key.run_id, key.agent_id, body))
        ends.append(RunEnd(now_us, column(told), key.agent_id, key.run_id))
    evidence = Evidence(records=tuple(records), run_ends=tuple(ends))
    return Job(lambda _: Wrote(None, evidence))


def _opened(new: NewRun) -> Draft:
    parent = new.parent
    body = RunOpened(
        purpose=new.purpose,
        trigger=new.trigger,
        envelope=new.envelope,
        expires_us=new.expires_us,
        parent_agent_id=parent.agent_id if parent else "",
        parent_run_id=parent.run_id if parent else "",
        user_id=new.user_id,
        user_verified=new.user_verified,
        by=new.by,
        key_id=new.token.id,
    )
    return Draft(RecordKind.RUN_OPENED, new.started_us, None, new.run_id, new.agent.id, _encode(body))


def _row(new: NewRun) -> RunOpen:
    parent, trigger = new.parent, new.trigger
    return RunOpen(
        agent_id=new.agent.id,
        run_id=new.run_id,
        parent_run_id=parent.run_id if parent else "",
        team=column(new.agent.team, 128),
        user_id=new.user_id,
        role_at_start=column(new.agent.role, 128),
        inferred=False,
        started_us=new.started_us,
        parent_agent_id=parent.agent_id if parent else "",
        purpose=new.purpose,
        trigger=_encode(trigger).decode() if trigger != Trigger() else "",
        envelope=envelopes.write(new.envelope),
        expires_us=new.expires_us,
        user_verified=new.user_verified,
    )
