"""A run in its tree: what binds it, how deep it may stand, and how its end is told. No I/O."""

from __future__ import annotations

import pytest

from budgets import RunRef, Unit
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.lineage import ALONE
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.standing import RunEnded
from llm_proxy.runs.envelope import Envelope, write
from llm_proxy.runs.placed import Placed, below, placed, run_ended, run_expired
from llm_proxy.runs.rows import DEEPEST, StoredRun

ROOT = StoredRun(
    agent_id="boss",
    run_id="root",
    team="lead",
    user_id="ada",
    envelope=write(Envelope(maximum={Unit.USD: 5}, tools=("a", "b*"))),
    expires_us=500,
)
CHILD = StoredRun(
    agent_id="bot",
    run_id="child",
    parent_agent_id="boss",
    parent_run_id="root",
    envelope=write(Envelope(maximum={Unit.REQUESTS: 2}, tools=("b*", "c"))),
    expires_us=900,
)
GRANDCHILD = StoredRun(agent_id="bot", run_id="grand", parent_agent_id="bot", parent_run_id="child")


def test_a_run_by_itself_is_bound_by_nothing() -> None:
    alone = placed([StoredRun(agent_id="bot", run_id="r", team="crew", user_id="ada")])
    assert alone.lineage is ALONE
    assert (alone.parent, alone.ending, alone.team, alone.user_id) == (None, None, "crew", "ada")


def test_all_that_stands_above_binds() -> None:
    place = placed([GRANDCHILD, CHILD, ROOT])
    lineage = place.lineage
    assert lineage.ancestors == (RunRef("bot", "child"), RunRef("boss", "root", "lead", "ada"))
    assert [bound.limit.id for bound in lineage.envelopes] == ["envelope:child", "envelope:root"]
    assert lineage.expires_us == 500
    assert place.expires == ROOT.key
    assert place.parent == CHILD.key
    assert [tool for tool in ("a", "b", "bx", "c", "d") if lineage.allows(tool)] == ["b", "bx"]


def test_an_empty_list_of_tools_allows_none() -> None:
    none = StoredRun(agent_id="bot", run_id="r", envelope=write(Envelope(tools=())))
    lineage = placed([none]).lineage
    assert not lineage.allows("a")
    assert lineage.envelopes == ()


def test_a_run_below_has_all_that_binds_the_one_above() -> None:
    above = placed([CHILD, ROOT])
    new = below(above, RunKey("bot", "new"), "crew")
    stored = StoredRun(agent_id="bot", run_id="new", parent_agent_id="bot", parent_run_id="child")
    read = placed([stored, CHILD, ROOT])
    assert (new.lineage.ancestors, new.lineage.envelopes) == (read.lineage.ancestors, read.lineage.envelopes)
    assert (new.lineage.expires_us, new.expires, new.above) == (500, ROOT.key, read.above)


def test_no_run_stands_deeper_than_can_be_read() -> None:
    place = Placed(RunKey("bot", "r0"))
    for depth in range(1, DEEPEST + 1):
        place = below(place, RunKey("bot", f"r{depth}"), "crew")
    assert len(place.lineage.ancestors) == DEEPEST
    with pytest.raises(ProxyError, match="stands 32 runs deep") as refused:
        below(place, RunKey("bot", "too-deep"), "crew")
    assert refused.value.kind is Kind.INVALID_REQUEST


def test_the_end_above_is_the_end_below() -> None:
    ended = StoredRun(agent_id="boss", run_id="root", ended_us=1_800_000_000_000_000, ended_why="enough.")
    ending = placed([GRANDCHILD, CHILD, ended]).ending
    assert ending == RunEnded("boss", "root", 1_800_000_000_000_000, "enough.")
    assert ending is not None
    error = run_ended(GRANDCHILD.key, ending)
    assert (error.kind, error.status, error.retryable) == (Kind.RUN_ENDED, 403, False)
    assert error.message == (
        "Run 'grand' is part of run 'root' of agent 'boss', which was ended at 2027-01-15T08:00:00Z: enough. "
        "Start another run: open one with POST /v1/runs, or send another x-run-id."
    )


def test_its_own_end_is_told_without_a_tree() -> None:
    own = RunEnded("bot", "r", 1_800_000_000_000_000, "done")
    assert run_ended(RunKey("bot", "r"), own).message.startswith(
        "Run 'r' was ended at 2027-01-15T08:00:00Z: done. Start"
    )
    expired = run_expired(RunKey("bot", "r"), RunKey("bot", "p"), 1_800_000_000_000_000)
    assert expired.message.startswith("Run 'r' is part of run 'p', which expired at 2027-01-15T08:00:00Z.")
    assert (expired.kind, expired.retryable) == (Kind.RUN_ENDED, False)
