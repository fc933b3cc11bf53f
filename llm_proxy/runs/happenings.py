"""Events that a person reports of a run, for rules that require one: from a word to the writer's job."""

from __future__ import annotations

import re

import msgspec

from llm_proxy.identity.freezing import checked_reason
from llm_proxy.identity.issuing import Via
from llm_proxy.records.advancing import run_update
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.policy_rows import RunEventRow
from llm_proxy.records.runstate import UNKNOWN, Mark, RunKey

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class RunHappened(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `run.event`."""

    event: str
    reason: str
    by: str
    """The operator's id, or `admin_token`."""
    via: Via


def report(run: RunKey, happened: RunHappened, now_us: int) -> Job:
    """The job by which the event happened at `now_us`; its value is False where the run isn't known.

    Raises ValueError for a name or a reason that can't be recorded.
    """
    if not _NAME.fullmatch(happened.event):
        raise ValueError("event: 1 to 128 letters, digits or _.- and a letter or digit first, as in a policy")
    if not checked_reason(happened.reason):
        raise ValueError("reason: say what was looked at; it is recorded")
    draft = Draft(RecordKind.RUN_EVENT, now_us, None, run.run_id, run.agent_id, msgspec.json.encode(happened))
    row = RunEventRow(run.agent_id, run.run_id, happened.event, happened.by, now_us)

    def then(found: Found) -> Wrote:
        if found.run is UNKNOWN:
            return Wrote(False)
        update = run_update(found.run, run, marks=Mark.EVENTS)
        return Wrote(True, Evidence(records=(draft,), run_events=(row,), run_updates=(update,)))

    return Job(then, run=run)
