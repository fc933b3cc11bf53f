"""What a run begins with: the labels of the run above it, which it can't wash off by starting anew."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records.evidence import Evidence
from llm_proxy.records.runstate import RunKey, RunState
from llm_proxy.records.tables import runs


class Inherited(msgspec.Struct, frozen=True):
    """Labels of the run above, as they were when the one below began."""

    sensitivity: int = 0
    untrusted: bool = False
    labels: tuple[str, ...] = ()


NONE = Inherited()
_labels = msgspec.json.Decoder(tuple[str, ...])


def from_above(parent: RunKey | None) -> Callable[[Connection], Inherited] | None:
    """What reads it, for a job's `look`; None where there is no run above."""
    if parent is None:
        return None
    mine = runs.c.agent_id == parent.agent_id, runs.c.run_id == parent.run_id
    query = select(runs.c.sensitivity, runs.c.untrusted, runs.c.labels).where(*mine)

    def look(connection: Connection) -> Inherited:
        row = connection.execute(query).first()
        return NONE if row is None else Inherited(row[0], bool(row[1]), _labels.decode(row[2]))

    return look


def labelled(state: RunState, above: Inherited) -> RunState:
    """A run's first state, with what it takes over."""
    return msgspec.structs.replace(
        state, sensitivity=above.sensitivity, untrusted=above.untrusted, labels=above.labels
    )


def begun_with(evidence: Evidence, above: Inherited) -> Evidence:
    """`evidence` whose runs, if they begin by it, begin with that."""
    if above == NONE or not evidence.runs:
        return evidence
    labels = msgspec.json.encode(above.labels).decode()
    rows = [
        row._replace(sensitivity=above.sensitivity, untrusted=above.untrusted, labels=labels)
        for row in evidence.runs
    ]
    return msgspec.structs.replace(evidence, runs=tuple(rows))
