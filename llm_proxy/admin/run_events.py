"""Events of a run on an operator's word, such as that a person has looked at it."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.approving import CHECKPOINT
from llm_proxy.identity.issuing import Via
from llm_proxy.records.batch import Job
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.times import iso
from llm_proxy.runs.happenings import RunHappened, report


class RunEventWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened, as the policy names it; `agent` where several used the run's id."""

    reason: str
    event: str = CHECKPOINT
    agent: str | None = None


class RunEventShown(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a run, as it is on record."""

    run_id: str
    agent_id: str
    event: str
    reason: str
    by: str
    at_us: int
    at: str


def meant(connection: Connection, run_id: str, wish: RunEventWish) -> RunKey:
    """The run that is meant. Raises `NotFound`, or `Unclear`."""
    return find_run(connection, run_id, wish.agent).stored.key


def happening(
    key: RunKey, wish: RunEventWish, now_us: int, *, by: str, via: Via
) -> tuple[Job, RunEventShown]:
    """The job, and what to answer once it is committed. Raises `Unclear`."""
    happened = RunHappened(event=wish.event, reason=wish.reason.strip(), by=by, via=via)
    try:
        job = report(key, happened, now_us)
    except ValueError as error:
        raise Unclear(str(error)) from None
    shown = RunEventShown(
        run_id=key.run_id,
        agent_id=key.agent_id,
        event=happened.event,
        reason=happened.reason,
        by=by,
        at_us=now_us,
        at=iso(now_us),
    )
    return job, shown
