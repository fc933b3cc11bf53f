"""What the store remembers of a run for the policy: labels, and what was proposed, allowed and answered."""

from __future__ import annotations

from enum import IntFlag
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection


class RunKey(msgspec.Struct, frozen=True, gc=False):
    """A run id is scoped to its agent."""

    agent_id: str
    run_id: str


PROVIDER_PLACES = 1 << 40
"""Where the positions of what a provider ran itself begin, behind those of the calls that it proposed."""


class JudgedCall(msgspec.Struct, frozen=True, gc=False):
    """A tool call of the run's past. Times are Unix microseconds."""

    tool_call_id: str
    tool: str
    decision: str
    effect: str
    digest: str
    at_us: int
    answered_us: int | None
    result: str | None = None
    """SHA-256 (hex) of what answered it; None where nothing did, or an earlier version took it in."""
    call_id: str = ""
    choice: int = 0
    position: int = 0

    @property
    def provider_run(self) -> bool:
        """Whether the provider ran it: its result came with the reply, and no agent answers it."""
        return self.position >= PROVIDER_PLACES


class Mark(IntFlag):
    """Tables that hold something of a run: most runs are in none, and then none is read."""

    UNSEEN = 1
    CLASSIFIED = 2
    EVENTS = 4


class RunState(msgspec.Struct, frozen=True):
    """A run as it stood at `revision`. A run that the store doesn't know is at revision 0."""

    revision: int = 0
    started_us: int = 0
    role_at_start: str = ""
    sensitivity: int = 0
    untrusted: bool = False
    labels: tuple[str, ...] = ()
    denials: int = 0
    marks: int = 0
    history: tuple[JudgedCall, ...] = ()


UNKNOWN = RunState()

_labels = msgspec.json.Decoder(tuple[str, ...])


_RUN = "agent_id, run_id, revision, started_us, role_at_start, sensitivity, untrusted, labels, denials, marks"
_CALL = (
    "agent_id, run_id, tool_call_id, tool, decision, effect, digest, at_us, answered_us, result, "
    "call_id, choice, position"
)


def load_runs(connection: Connection, keys: set[RunKey]) -> dict[RunKey, RunState]:
    """The states of `keys`, read in two statements and locked: no other writer can change them first.

    Every reply with tool calls pays for this, so the statements go to the driver as text: SQLAlchemy would
    build and compile an expression per key.
    """
    found = dict.fromkeys(keys, UNKNOWN)
    if not keys:
        return found
    ordered = sorted((key.agent_id, key.run_id) for key in keys)
    lock = " FOR UPDATE OF state_runs" if connection.dialect.name == "postgresql" else ""
    rows = _among(connection, _RUN, "state_runs", ordered, f"agent_id, run_id{lock}")
    if not rows:
        return found
    history = _histories(connection, ordered)
    for agent, run, revision, started, role, sensitivity, untrusted, labels, denials, marks in rows:
        key = RunKey(agent, run)
        found[key] = RunState(
            revision=revision,
            started_us=started,
            role_at_start=role,
            sensitivity=sensitivity,
            untrusted=bool(untrusted),
            labels=_labels.decode(labels),
            denials=denials,
            marks=marks,
            history=tuple(history.get(key, ())),
        )
    return found


def _histories(connection: Connection, keys: list[tuple[str, str]]) -> dict[RunKey, list[JudgedCall]]:
    histories: dict[RunKey, list[JudgedCall]] = {}
    rows = _among(connection, _CALL, "state_tool_calls", keys, "at_us, call_id, choice, position")
    for agent, run, *judged in rows:
        histories.setdefault(RunKey(agent, run), []).append(JudgedCall(*judged))
    return histories


def _among(
    connection: Connection, columns: str, table: str, keys: list[tuple[str, str]], order: str
) -> list[Any]:
    """Rows of `table` whose (agent, run) is one of `keys`. The names are constants of ours.

    Joined, since SQLite reads the whole table for a row value that is IN a list.
    """
    mark = "(%s, %s)" if connection.dialect.name == "postgresql" else "(?, ?)"
    marks = ", ".join([mark] * len(keys))
    sql = (
        f"WITH wanted(agent, run) AS (VALUES {marks}) SELECT {columns} FROM wanted "  # noqa: S608
        f"JOIN {table} ON {table}.agent_id = wanted.agent AND {table}.run_id = wanted.run ORDER BY {order}"
    )
    return list(connection.exec_driver_sql(sql, tuple(chain.from_iterable(keys))).fetchall())
