"""Where runs stand in their trees, as the exported spans need it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import structs
from sqlalchemy import Connection, select, tuple_

from llm_proxy.records.tables import runs
from llm_proxy.telemetry.items import RunFacts, RunRef

_AT_ONCE = 200
_MOST = 4_096
"""Runs that are remembered."""
_DEEPEST = 64
"""Levels of a tree that are climbed; what is above makes no difference then."""


class RunTrees:
    """Runs by their keys. What a run's row says here never changes, so that it's read once."""

    def __init__(self) -> None:
        self._known: OrderedDict[RunRef, RunFacts] = OrderedDict()

    def find(self, connection: Connection, wanted: Iterable[RunRef]) -> dict[RunRef, RunFacts]:
        """Those of the runs that the store knows."""
        asked = {ref for ref in wanted if ref.run_id}
        found = {ref: self._known[ref] for ref in asked if ref in self._known}
        rows = self._read(connection, asked - found.keys())
        for ref in asked & rows.keys():
            found[ref] = self._known[ref] = self._placed(ref, rows)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found

    def _read(self, connection: Connection, wanted: set[RunRef]) -> dict[RunRef, RunFacts]:
        """The runs and all that stand above them; each is its own topmost one as yet."""
        found: dict[RunRef, RunFacts] = {}
        for _ in range(_DEEPEST):
            if not wanted:
                break
            rows = _rows(connection, list(wanted))
            found |= rows
            above = {facts.parent for facts in rows.values() if facts.parent is not None}
            wanted = above - found.keys()
        return found

    def _placed(self, ref: RunRef, rows: dict[RunRef, RunFacts]) -> RunFacts:
        top, seen, facts = ref, {ref}, rows[ref]
        while (above := rows[top].parent) is not None and above in rows and above not in seen:
            seen.add(above)
            top = above
        parent = facts.parent if facts.parent in rows else None
        return structs.replace(facts, parent=parent, top=top)


def _rows(connection: Connection, wanted: list[RunRef]) -> dict[RunRef, RunFacts]:
    c = runs.c
    columns = (
        *(c.agent_id, c.run_id, c.parent_agent_id, c.parent_run_id, c.started_us, c.team),
        *(c.role_at_start, c.user_id, c.inferred, c.purpose, c.trigger),
    )
    found: dict[RunRef, RunFacts] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        keys = [tuple(ref) for ref in wanted[start : start + _AT_ONCE]]
        for row in connection.execute(select(*columns).where(tuple_(c.agent_id, c.run_id).in_(keys))):
            ref = RunRef(row.agent_id, row.run_id)
            found[ref] = RunFacts(
                ref=ref,
                started_us=row.started_us,
                parent=RunRef(row.parent_agent_id, row.parent_run_id) if row.parent_agent_id else None,
                top=ref,
                parent_run_id=row.parent_run_id,
                team=row.team,
                role=row.role_at_start,
                user_id=row.user_id,
                inferred=bool(row.inferred),
                purpose=row.purpose,
                trigger=row.trigger,
            )
    return found
