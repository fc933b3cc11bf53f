"""What a run takes over from another: the labels and classified values of the run above it, and those of a
run whose conversation it goes on with. Neither is washed off by starting anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records.classified import load_classified
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.policy_rows import ClassifiedRow
from llm_proxy.records.runstate import Mark, RunKey, RunState
from llm_proxy.records.tables import runs


class Inherited(msgspec.Struct, frozen=True):
    """What the other run has, as it stands when it is taken over. The rows are the other run's own."""

    sensitivity: int = 0
    untrusted: bool = False
    labels: tuple[str, ...] = ()
    classified: tuple[ClassifiedRow, ...] = ()

    def rows_of(self, agent_id: str, run_id: str) -> tuple[ClassifiedRow, ...]:
        """The classified values as those of the run that takes them over."""
        return tuple([row._replace(agent_id=agent_id, run_id=run_id) for row in self.classified])

    @property
    def marks(self) -> int:
        return int(Mark.CLASSIFIED) if self.classified else 0


NONE = Inherited()
_labels = msgspec.json.Decoder(tuple[str, ...])


class Sources(NamedTuple):
    """What a call's run takes over: as it begins, and by the conversation that the call goes on with."""

    above: Inherited = NONE
    conversation: Inherited = NONE


NOTHING = Sources()


def from_above(parent: RunKey | None) -> Callable[[Connection], Inherited] | None:
    """What reads it, for a job's `look`; None where there is no run above."""
    return None if parent is None else lambda connection: _read(connection, parent)


def from_both(parent: RunKey | None, conversation: RunKey | None) -> Callable[[Connection], Sources] | None:
    """As `from_above`, of up to two runs; None where there is neither."""
    if parent is None and conversation is None:
        return None

    def look(connection: Connection) -> Sources:
        return Sources(*[NONE if run is None else _read(connection, run) for run in (parent, conversation)])

    return look


def _read(connection: Connection, run: RunKey) -> Inherited:
    mine = runs.c.agent_id == run.agent_id, runs.c.run_id == run.run_id
    query = select(runs.c.sensitivity, runs.c.untrusted, runs.c.labels, runs.c.marks).where(*mine)
    row = connection.execute(query).first()
    if row is None:
        return NONE
    values = load_classified(connection, run) if row[3] & Mark.CLASSIFIED else ()
    return Inherited(row[0], bool(row[1]), _labels.decode(row[2]), tuple(values))


def labelled(state: RunState, above: Inherited) -> RunState:
    """A run's first state, with what it takes over."""
    return msgspec.structs.replace(
        state,
        sensitivity=above.sensitivity,
        untrusted=above.untrusted,
        labels=above.labels,
        marks=state.marks | above.marks,
    )


def begun_with(evidence: Evidence, above: Inherited) -> Evidence:
    """`evidence` whose runs, if they begin by it, begin with that."""
    if above == NONE or not evidence.runs:
        return evidence
    labels = msgspec.json.encode(above.labels).decode()
    rows = [
        row._replace(
            sensitivity=above.sensitivity,
            untrusted=above.untrusted,
            labels=labels,
            marks=row.marks | above.marks,
        )
        for row in evidence.runs
    ]
    values = [value for row in rows for value in above.rows_of(row.agent_id, row.run_id)]
    return msgspec.structs.replace(evidence, runs=tuple(rows), classified=(*evidence.classified, *values))
