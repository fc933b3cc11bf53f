"""The calls of a recorded run, ready to be replayed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_proxy.errors import ProxyError
from llm_proxy.records.view import CallView, Status
from llm_proxy.replaying.compare import Asked, asked
from llm_proxy.wire.dialects import DIALECTS

MOST_CALLS = 10_000
MOST_BYTES = 512 << 20
"""Of content that is held in memory."""
_SOON = 8
"""Calls within which a retry comes."""


class NotReplayable(Exception):
    """The run can't be replayed; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call. `number` counts the calls that can be replayed, from 1."""

    number: int
    call: CallView
    asked: Asked

    @property
    def masked(self) -> bool:
        return self.call.masked

    @property
    def came(self) -> bytes:
        """What the agent received, less the error that a broken stream ended with."""
        call = self.call
        return call.released if call.released is not None else call.emitted or b""


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    agent_id: str
    calls: tuple[Recorded, ...]
    left_out: int
    """Calls of the run that no replay serves: files, batches, actions to check, fetched responses."""

    def retried(self, call: Recorded) -> bool:
        """Whether the recorded agent asked the same again soon after."""
        later = self.calls[call.number : call.number + _SOON]
        return any(each.asked.digest == call.asked.digest for each in later)


def replayable(call: CallView) -> bool:
    """Whether it is a request that an agent posts to a model API and that can be read."""
    dialect = DIALECTS[call.dialect]
    return bool(dialect.path) and not dialect.raw and call.request != b""


def run_of(run_id: str, agent_id: str, views: Iterable[CallView]) -> Run:
    """`views` are the run's calls with their content, the oldest first. Raises `NotReplayable`."""
    calls: list[Recorded] = []
    left_out = held = 0
    for view in views:
        if not replayable(view) or (read := _asked(view)) is None:
            left_out += 1
            continue
        call = Recorded(len(calls) + 1, view, read)
        held += len(view.request or b"") + len(call.came)
        if held > MOST_BYTES or len(calls) == MOST_CALLS:
            raise NotReplayable(
                f"Run {run_id} holds over {MOST_CALLS:,} calls or {MOST_BYTES >> 20} MiB of content, "
                "which is more than a replay serves."
            )
        calls.append(call)
    if not calls:
        raise NotReplayable(f"Run {run_id} has no call to a model API that could be replayed.")
    return Run(run_id, agent_id, tuple(calls), left_out)


def _asked(view: CallView) -> Asked | None:
    """None for a request that could not be read when it came, either. Raises `NotReplayable`."""
    if (
        not view.kept
        or view.request is None
        or (_has_reply(view) and view.emitted is None and view.released is None)
    ):
        raise NotReplayable(
            f"The content of call {view.id} is no longer kept (records.retention_days, records.content), and "
            "a run is only replayed whole."
        )
    dialect = DIALECTS[view.dialect]
    try:
        return asked(dialect, dialect.parse(view.request))
    except ProxyError:
        return None


def _has_reply(view: CallView) -> bool:
    return view.status in (Status.OK, Status.CUT)
