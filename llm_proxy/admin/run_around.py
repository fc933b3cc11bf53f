"""What happened around a run's calls, each at its own time: runs below it, and what became of approvals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.approval_lines import ApprovalLine
from llm_proxy.admin.run_told import children_of
from llm_proxy.admin.shapes import ChildRun
from llm_proxy.archive.approvals import uses_of, votes_of
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.runstate import RunKey

MOST_RUNS = 100
DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Below:
    """A run below another; `depth` is 1 for one that it began itself."""

    depth: int
    run: ChildRun


class ApprovalMoment(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an approval. `what`: asked, used, expired, or a person's word: approve, deny."""

    what: str
    at_us: int
    approval: ApprovalLine
    by: str = ""
    reason: str = ""


def runs_below(
    connection: Connection, run: RunKey, begun: Sequence[ChildRun], *, more: bool
) -> tuple[tuple[Below, ...], bool]:
    """The runs that it has `begun`, each with those that it began in turn, each once; whether there are more.

    At most `MOST_RUNS`, down to `DEEPEST`. `more`: it began others too.
    """
    below: dict[RunKey, list[Below]] = {}
    seen, found = {run}, [(run, child) for child in begun]
    for depth in range(1, DEEPEST + 2):  # by levels: what is nearest goes before what is far below
        level: list[RunKey] = []
        for parent, child in found:
            key = RunKey(child.agent_id, child.run_id)
            if key in seen:
                continue
            if len(seen) > MOST_RUNS or depth > DEEPEST:
                return tuple(_in_order(below, run)), True
            seen.add(key)
            level.append(key)
            below.setdefault(parent, []).append(Below(depth, child))
        if more or not level:
            break
        found = children_of(connection, level, MOST_RUNS + 2)  # one more than have room, and all seen ones
    return tuple(_in_order(below, run)), more


def _in_order(below: Mapping[RunKey, Sequence[Below]], above: RunKey) -> Iterator[Below]:
    """Each followed by those that it began."""
    for one in below.get(above, ()):
        yield one
        yield from _in_order(below, RunKey(one.run.agent_id, one.run.run_id))


def approval_moments(
    connection: Connection, approvals: Sequence[ApprovalLine], calls: Sequence[str]
) -> tuple[ApprovalMoment, ...]:
    """Of `approvals`, in order of time; a grant's uses by the run's `calls`."""
    return tuple(sorted(_moments(connection, approvals, calls), key=lambda one: one.at_us))


def _moments(
    connection: Connection, approvals: Sequence[ApprovalLine], calls: Sequence[str]
) -> Iterator[ApprovalMoment]:
    if not approvals:
        return
    by_id = {one.id: one for one in approvals}
    votes = votes_of(connection, list(by_id))
    for one in approvals:
        yield ApprovalMoment(what="asked", at_us=one.requested_us, approval=one)
        for vote in votes.get(one.id, ()):
            yield ApprovalMoment(
                what=vote.decision, at_us=vote.at_us, approval=one, by=vote.operator, reason=vote.reason
            )
        if one.status is ApprovalStatus.EXPIRED:
            yield ApprovalMoment(what="expired", at_us=one.expires_us, approval=one)
    for at_us, id_ in uses_of(connection, calls):
        if id_ in by_id:
            yield ApprovalMoment(what="used", at_us=at_us, approval=by_id[id_])
