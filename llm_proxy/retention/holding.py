"""Places and releases legal holds, each with its record; what stands is told by who commits first."""

from __future__ import annotations

from sqlalchemy import Connection, select

from llm_proxy.records.audit_rows import LegalHoldRow
from llm_proxy.records.audit_tables import legal_holds
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.retention_bodies import HoldPlaced, HoldReleased, encode
from llm_proxy.records.runstate import RunKey

_COLUMNS = [legal_holds.c[name] for name in LegalHoldRow._fields]


def find_hold(connection: Connection, key: RunKey) -> LegalHoldRow | None:
    """The hold on the run, standing or released."""
    c = legal_holds.c
    query = select(*_COLUMNS).where(c.agent_id == key.agent_id, c.run_id == key.run_id)
    row = connection.execute(query).first()
    return None if row is None else LegalHoldRow(*row)


def list_holds(connection: Connection, limit: int, *, released: bool = False) -> list[LegalHoldRow]:
    """Those that stand, the last placed first; with `released` those that were, too."""
    c = legal_holds.c
    query = select(*_COLUMNS).order_by(c.placed_us.desc(), c.agent_id, c.run_id).limit(limit)
    if not released:
        query = query.where(c.released_us.is_(None))
    return [LegalHoldRow(*row) for row in connection.execute(query)]


def place(key: RunKey, now_us: int, *, reason: str, by: str, via: str) -> Job:
    """Its value is the hold that stands now, and whether this job placed it."""

    def then(found: Found) -> Wrote:
        before: LegalHoldRow | None = found.seen
        if before is not None and before.released_us is None:
            return Wrote((before, False))
        row = LegalHoldRow(key.agent_id, key.run_id, by, reason, now_us)
        body = encode(HoldPlaced(by=by, via=via, reason=reason))
        draft = Draft(RecordKind.LEGAL_HOLD_PLACED, now_us, None, key.run_id, key.agent_id, body)
        return Wrote((row, True), Evidence(records=(draft,), legal_holds=(row,)))

    return Job(then, run=key, look=lambda connection: find_hold(connection, key))


def release(key: RunKey, now_us: int, *, reason: str, by: str, via: str) -> Job:
    """Its value is the hold as it stands now (None: there never was any), and whether this released it."""

    def then(found: Found) -> Wrote:
        before: LegalHoldRow | None = found.seen
        if before is None or before.released_us is not None:
            return Wrote((before, False))
        row = before._replace(released_us=now_us)
        body = encode(HoldReleased(by=by, via=via, reason=reason, placed_us=before.placed_us))
        draft = Draft(RecordKind.LEGAL_HOLD_RELEASED, now_us, None, key.run_id, key.agent_id, body)
        return Wrote((row, True), Evidence(records=(draft,), legal_holds=(row,)))

    return Job(then, run=key, look=lambda connection: find_hold(connection, key))
