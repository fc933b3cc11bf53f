"""What the processes on a store told of the targets, as rows; and which target answered a run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from llm_proxy.records.fleet_rows import BreakerRow, TargetRow
from llm_proxy.records.tables import breakers, calls, targets


@dataclass(frozen=True, slots=True)
class LastTarget:
    """Which target answered, and when (Unix µs)."""

    target: str
    at_us: int


def breaker_rows(connection: Connection) -> list[BreakerRow]:
    """Every breaker that was opened of late, closed ones too."""
    columns = [breakers.c[name] for name in BreakerRow.__slots__]
    return [BreakerRow(*row) for row in connection.execute(select(*columns))]


def target_rows(connection: Connection) -> list[TargetRow]:
    """One per target and process, of those processes too that ended within the last day."""
    columns = [targets.c[name] for name in TargetRow.__slots__]
    return [TargetRow(*row) for row in connection.execute(select(*columns))]


def last_target(connection: Connection, agent: str, run: str, model: str) -> LastTarget | None:
    """Who answered the run's newest call for the model that went well."""
    query = (
        select(calls.c.target, calls.c.ended_us)
        .where(calls.c.run_id == run, calls.c.agent_id == agent, calls.c.model == model)
        .where(calls.c.status == "ok", calls.c.target.is_not(None), calls.c.ended_us.is_not(None))
        .order_by(calls.c.started_us.desc(), calls.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else LastTarget(row.target, row.ended_us)
