"""The statements with which a batch is written, prepared once for the store's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, and_, bindparam, case, or_
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

from llm_proxy.records import audit_rows as a
from llm_proxy.records import audit_tables as at
from llm_proxy.records import evidence as e
from llm_proxy.records import policy_rows as p
from llm_proxy.records import policy_tables as pt
from llm_proxy.records import tables as t
from llm_proxy.records.prepared import Prepared, upsert
from llm_proxy.records.rule_hits import RuleHitRow, added_hits

_RECORD = ("writer", "seq", "kind", "at_us", "call_id", "run_id", "agent_id", "body", "hash")
_BLOB = ("id", "epoch", "codec", "size", "data")


class RunChanged(Exception):
    """A run isn't at the revision that its update rests on: another writer began it at the same moment."""


class Statements:
    """Every way in which a batch changes the store."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.record = self._insert(t.records, _RECORD)
        self.blob = self._insert(t.blobs, _BLOB, ignore=True)
        self.call_open = self._insert(t.calls, e.CallOpen._fields)
        self.call_close = self._update(t.calls, e.CallClose._fields, keys=("id",))
        self.run_begin = self._insert(t.runs, e.RunOpen._fields)
        self.run_open = self._insert(t.runs, e.RunOpen._fields, ignore=True)
        self.run_update = self._run_update()
        self.tool_call = self._insert(t.tool_calls, e.ToolCallRow._fields)
        self.answered = self._update(
            t.tool_calls, e.Answered._fields, keys=("agent_id", "run_id", "call_id", "choice", "position")
        )
        self.response = self._response()
        self.key = self._insert(t.keys, e.KeyRow._fields)
        self.revoked = self._revoked()
        self.refusal = Prepared(self._refusal(), dialect)
        self.spend = self._adding(t.spend, e.SpendRow)
        self.tool_spend = self._adding(t.tool_spend, e.ToolSpendRow)
        self.price = self._insert(t.prices, e.PriceRow._fields, ignore=True)
        self.run_end = self._run_end()
        self.freeze = self._freeze()
        self.others_expire = self._others_expire()
        self.delivery = self._insert(t.deliveries, e.DeliveryRow._fields)
        self.counted = self._counting()
        self.rule_hit = self._hitting()
        self.approval = self._insert(pt.approvals, p.ApprovalRow._fields)
        self.approval_change = self._update(pt.approvals, p.ApprovalChange._fields, keys=("id",))
        self.vote = self._insert(pt.votes, p.VoteRow._fields, ignore=True)
        self.link = self._insert(pt.links, p.LinkRow._fields)
        self.link_used = self._update(pt.links, p.LinkUsed._fields, keys=("sha256",))
        self.run_event = self._replacing(pt.run_events, p.RunEventRow, ("agent_id", "run_id", "name"))
        self.effect = self._insert(pt.effects, p.EffectRow._fields)
        self.unseen = self._insert(pt.unseen, p.UnseenRow._fields, ignore=True)
        self.classified = self._rising()
        self.checkpoint = self._insert(at.checkpoints, a.CheckpointRow._fields)
        self.purged = self._replacing(at.purged, a.PurgedRow, ("epoch",))
        self.legal_hold = self._replacing(at.legal_holds, a.LegalHoldRow, ("agent_id", "run_id"))
        self.prefix = self._insert(at.prefixes, a.PrefixRow._fields, ignore=True)
        self.trace = self._insert(at.traces, a.TraceRow._fields, ignore=True)
        self.head = self._update(t.writers, ("seen_us", "head_seq", "head_hash", "writer"), keys=("writer",))

    def write(self, connection: Connection, pieces: list[e.Evidence]) -> None:
        """Everything but records and blobs, which the writer numbers and compresses first.

        Rows that other writers may touch too go in order of their keys, so that no two transactions wait
        for each other. Raises `RunChanged`, and `IntegrityError` where a run to be opened is there already.
        """
        runs = sorted([row for piece in pieces for row in piece.runs], key=_run_key)
        plan: tuple[tuple[Prepared, Sequence[tuple[Any, ...]]], ...] = (
            (self.run_begin, [row for row in runs if row.expires_us is not None]),
            (self.run_open, [row for row in runs if row.expires_us is None]),
            (self.call_open, [row for piece in pieces for row in piece.opens]),
            (self.call_close, sorted([row for piece in pieces for row in piece.closes], key=_call_key)),
            (self.tool_call, [row for piece in pieces for row in piece.tool_calls]),
            (self.answered, [row for piece in pieces for row in piece.answered]),
            (self.response, sorted([row for piece in pieces for row in piece.responses])),
            (self.key, [row for piece in pieces for row in piece.keys]),
            (self.revoked, sorted([row for piece in pieces for row in piece.revoked], key=_key)),
            (self.refusal, sorted([row for piece in pieces for row in piece.refusals])),
            (self.spend, summed([row for piece in pieces for row in piece.spend])),
            (self.tool_spend, summed([row for piece in pieces for row in piece.tool_spend])),
            (self.price, sorted([row for piece in pieces for row in piece.prices])),
            (self.run_end, sorted([row for piece in pieces for row in piece.run_ends])),
            (self.freeze, sorted([row for piece in pieces for row in piece.freezes], key=_agent)),
            (
                self.others_expire,
                [(*row, row.expires_us) for piece in pieces for row in sorted(piece.others_expire)],
            ),
            (self.delivery, [row for piece in pieces for row in piece.deliveries]),
            *self._of_policy(pieces),
            (self.checkpoint, [row for piece in pieces for row in piece.checkpoints]),
            (self.purged, [row for piece in pieces for row in piece.purged]),
            (self.legal_hold, _last({row[:2]: row for piece in pieces for row in piece.legal_holds})),
            (self.prefix, sorted([row for piece in pieces for row in piece.prefixes])),
            (self.trace, sorted([row for piece in pieces for row in piece.traces])),
        )
        for statement, rows in plan:
            statement.run(connection, list(rows))
        updates = [(*row, row.revision - 1) for piece in pieces for row in piece.run_updates]
        if updates and self.run_update.run(connection, updates) != len(updates):
            raise RunChanged

    def _of_policy(self, pieces: list[e.Evidence]) -> tuple[tuple[Prepared, Sequence[tuple[Any, ...]]], ...]:
        """What verdicts and approvals leave beside their records."""
        return (
            (self.counted, _added([row for piece in pieces for row in piece.counted])),
            (self.rule_hit, added_hits([row for piece in pieces for row in piece.rule_hits])),
            (self.approval, [row for piece in pieces for row in piece.approvals]),
            (
                self.approval_change,
                sorted([row for piece in pieces for row in piece.approval_changes], key=_approval),
            ),
            (self.vote, [row for piece in pieces for row in piece.votes]),
            (self.link, [row for piece in pieces for row in piece.links]),
            (self.link_used, [row for piece in pieces for row in piece.links_used]),
            (self.run_event, _last({row[:3]: row for piece in pieces for row in piece.run_events})),
            (self.effect, [row for piece in pieces for row in piece.effects]),
            (self.unseen, sorted([row for piece in pieces for row in piece.unseen], key=_unseen)),
            (self.classified, sorted([row for piece in pieces for row in piece.classified])),
        )

    def _insert(self, table: Table, names: tuple[str, ...], *, ignore: bool = False) -> Prepared:
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in names})
        return self._prepare(statement.on_conflict_do_nothing() if ignore else statement, names)

    def _update(self, table: Table, names: tuple[str, ...], *, keys: tuple[str, ...]) -> Prepared:
        statement = (
            table.update()
            .where(and_(*(table.c[key] == bindparam(f"b_{key}") for key in keys)))
            .values({name: bindparam(name) for name in names if name not in keys})
        )
        return self._prepare(statement, tuple(f"b_{name}" if name in keys else name for name in names))

    def _prepare(self, statement: Insert | Update, names: tuple[str, ...]) -> Prepared:
        prepared = Prepared(statement, self._dialect)
        if prepared.names != names:
            raise AssertionError(f"parameters {prepared.names} are not in the order of {names}")
        return prepared

    def _run_update(self) -> Prepared:
        """Only from the revision just before, so that no change of another writer is overwritten."""
        c = t.runs.c
        keys = {"b_agent_id": c.agent_id, "b_run_id": c.run_id, "b_revision": c.revision}
        names = [name for name in e.RunUpdate._fields if name not in ("agent_id", "run_id")]
        statement = (
            t.runs.update()
            .where(and_(*(column == bindparam(name) for name, column in keys.items())))
            .values({name: bindparam(name) for name in names})
        )
        return self._prepare(statement, (*names, *keys))

    def _response(self) -> Prepared:
        statement = upsert(t.responses, self._dialect).values(
            {name: bindparam(name) for name in e.ResponseRow._fields}
        )
        charged = or_(t.responses.c.charged, statement.excluded.charged)
        told = {"charged": charged, "denied": statement.excluded.denied}
        conflict = statement.on_conflict_do_update(index_elements=["id", "agent_id"], set_=told)
        return self._prepare(conflict, e.ResponseRow._fields)

    def _revoked(self) -> Prepared:
        keys = t.keys.c
        statement = (
            t.keys.update()
            .where(keys.id == bindparam("b_id"), keys.revoked_us.is_(None))
            .values(revoked_us=bindparam("revoked_us"), changed_us=bindparam("changed_us"))
        )
        return self._prepare(statement, ("revoked_us", "changed_us", "b_id"))

    def _others_expire(self) -> Prepared:
        """Decided by the store, so that no key that was issued meanwhile is left out."""
        keys = t.keys.c
        others = (keys.agent_id == bindparam("b_agent_id"), keys.id != bindparam("b_id"))
        later = or_(keys.expires_us.is_(None), keys.expires_us > bindparam("b_later"))
        statement = (
            t.keys.update()
            .where(*others, keys.revoked_us.is_(None), later)
            .values(expires_us=bindparam("expires_us"), changed_us=bindparam("changed_us"))
        )
        return self._prepare(statement, ("expires_us", "changed_us", "b_agent_id", "b_id", "b_later"))

    def _run_end(self) -> Prepared:
        """The first end stands."""
        c = t.runs.c
        statement = (
            t.runs.update()
            .where(
                c.agent_id == bindparam("b_agent_id"), c.run_id == bindparam("b_run_id"), c.ended_us.is_(None)
            )
            .values(ended_us=bindparam("ended_us"), ended_why=bindparam("ended_why"))
        )
        return self._prepare(statement, ("ended_us", "ended_why", "b_agent_id", "b_run_id"))

    def _freeze(self) -> Prepared:
        """The first freeze stands until it's thawed."""
        statement = upsert(t.agents, self._dialect).values(
            {name: bindparam(name) for name in e.FreezeRow._fields}
        )
        told = {name: statement.excluded[name] for name in e.FreezeRow._fields if name != "agent_id"}
        first = or_(t.agents.c.frozen_us.is_(None), statement.excluded.frozen_us.is_(None))
        conflict = statement.on_conflict_do_update(index_elements=["agent_id"], set_=told, where=first)
        return self._prepare(conflict, e.FreezeRow._fields)

    def _adding(self, table: Table, row: type[e.SpendRow | e.ToolSpendRow]) -> Prepared:
        """Adds to a day's sums, or begins them."""
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in row._fields})
        sums = {name: table.c[name] + statement.excluded[name] for name in row._field_defaults}
        conflict = statement.on_conflict_do_update(index_elements=["day", "id"], set_=sums)
        return self._prepare(conflict, row._fields)

    def _counting(self) -> Prepared:
        """Adds to the policy's counters, or begins them."""
        statement = upsert(pt.counts, self._dialect).values(
            {name: bindparam(name) for name in p.Counted._fields}
        )
        used = {"used": pt.counts.c.used + statement.excluded.used}
        conflict = statement.on_conflict_do_update(index_elements=["cap", "subject", "day"], set_=used)
        return self._prepare(conflict, p.Counted._fields)

    def _hitting(self) -> Prepared:
        """Adds to what a rule did in an hour, or begins it."""
        table, names = pt.rule_hits, RuleHitRow._fields
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in names})
        new = statement.excluded
        later = case((new.last_us > table.c.last_us, new.last_us), else_=table.c.last_us)
        told = {"hits": table.c.hits + new.hits, "last_us": later}
        keys = ["hour", "rule", "said"]
        return self._prepare(statement.on_conflict_do_update(index_elements=keys, set_=told), names)

    def _replacing(self, table: Table, row: type[_Replacing], keys: tuple[str, ...]) -> Prepared:
        """Inserts, or takes the place of what stands under these keys."""
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in row._fields})
        told = {name: statement.excluded[name] for name in row._fields if name not in keys}
        return self._prepare(statement.on_conflict_do_update(index_elements=keys, set_=told), row._fields)

    def _rising(self) -> Prepared:
        """Inserts a value that came into a run; where it is there, the higher rank stands, with its rule."""
        table, names = pt.classified, p.ClassifiedRow._fields
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in names})
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["agent_id", "run_id", "token"],
            set_={"sensitivity": new.sensitivity, "rule": new.rule},
            where=table.c.sensitivity < new.sensitivity,
        )
        return self._prepare(statement, names)

    def _refusal(self) -> Insert:
        statement = upsert(t.refusals, self._dialect).values(
            minute=bindparam("minute"), reason=bindparam("reason"), count=bindparam("count")
        )
        return statement.on_conflict_do_update(
            index_elements=["minute", "reason"],
            set_={"count": t.refusals.c.count + statement.excluded.count},
        )


Sums = TypeVar("Sums", e.SpendRow, e.ToolSpendRow)
_Replacing = p.RunEventRow | a.LegalHoldRow | a.PurgedRow


def summed(rows: Sequence[Sums]) -> list[Sums]:
    """One row per day and id, in their order: those of a batch add up before the store is asked."""
    found: dict[tuple[int, bytes], Sums] = {}
    for row in rows:
        before = found.get((row.day, row.id))
        if before is not None:
            start = len(row) - len(row._field_defaults)
            row = row._make([*row[:start], *map(_sum, before[start:], row[start:])])  # noqa: PLW2901
        found[row.day, row.id] = row
    return [found[key] for key in sorted(found)]


def _sum(a: Any, b: Any) -> Any:
    return a + b


def _added(rows: Sequence[p.Counted]) -> list[p.Counted]:
    """One row per counter, in order of their keys."""
    found: dict[tuple[str, str, int], int] = {}
    for row in rows:
        found[row[:3]] = found.get(row[:3], 0) + row.used
    return [p.Counted(*key, used) for key, used in sorted(found.items())]


def _last(rows: dict[Any, Any]) -> list[Any]:
    return [rows[key] for key in sorted(rows)]


def _unseen(row: p.UnseenRow) -> tuple[str, str, str]:
    return row[:3]


def _approval(row: p.ApprovalChange) -> str:
    return row.id


def _agent(row: e.FreezeRow) -> str:
    return row.agent_id


def _key(row: e.KeyRevoked) -> str:
    return row.id


def _run_key(row: e.RunOpen) -> tuple[str, str]:
    return row.agent_id, row.run_id


def _call_key(row: e.CallClose) -> str:
    return row.id
