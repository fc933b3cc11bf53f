"""One transaction of the writer: many calls' holds, settlements, verdicts and records, committed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from budgets import Op, Result, SqlLedger
from llm_proxy.records.audit_rows import CheckpointRow
from llm_proxy.records.blobs import Codec
from llm_proxy.records.chain import Row, link
from llm_proxy.records.counters import CounterKey, load_counters
from llm_proxy.records.evidence import NOTHING, BlobDraft, DeliveryRow, Draft, Evidence, RecordKind
from llm_proxy.records.large import LARGE, write_large
from llm_proxy.records.policy_rows import Counted
from llm_proxy.records.runstate import UNKNOWN, RunKey, RunState, load_runs
from llm_proxy.records.statements import Statements
from llm_proxy.records.stored import BlobRow, stored_draft
from llm_proxy.records.tables import calls
from llm_proxy.records.view import Status


class Found(msgspec.Struct, frozen=True):
    """What the transaction gave one job: its operations' results, and its run as it stands."""

    results: tuple[Result, ...]
    run: RunState
    open: frozenset[str] = frozenset()
    """Those of the job's `calls` that nobody has closed."""
    counted: Mapping[CounterKey, int] = {}
    """What each of the job's `counters` has used by now."""
    seen: Any = None
    """What the job's `look` returned."""
    planned: Any = None
    """The `memo` of what the job planned."""


class Planned(msgspec.Struct, frozen=True):
    """What a job does to the ledger, now that it knows how its run and its counters stand."""

    ops: tuple[Op, ...] = ()
    counted: tuple[Counted, ...] = ()
    """What it adds to its counters where every operation goes well: other jobs of the batch see it so."""
    memo: Any = None
    """For `then`."""


class Wrote(msgspec.Struct, frozen=True):
    """What a job adds to the store, and what its caller is told."""

    value: Any
    evidence: Evidence = NOTHING


@dataclass(slots=True)
class Job:
    """A unit of work: ledger operations, then evidence that depends on how they went.

    `then` runs in the writer's thread, inside the transaction, and must be pure: the whole batch may be
    rolled back and its jobs run again, all together or one by one. `expect` is the revision at which `run`
    must still stand; where it doesn't, no operation is applied and `then` sees the newer state with no
    results. `calls` are ids of which `then` must know whether they are still open. `counters` are those of
    the policy that it adds to: they stay as `then` sees them until the transaction ends. `look` reads more;
    what it reads must not be written by another job of the batch, such as rows of the job's own `run`.
    `plan`, as pure as `then`, says the operations where they depend on all that.
    """

    then: Callable[[Found], Wrote]
    ops: tuple[Op, ...] = ()
    run: RunKey | None = None
    expect: int | None = None
    calls: tuple[str, ...] = ()
    counters: tuple[CounterKey, ...] = ()
    look: Callable[[Connection], Any] | None = None
    plan: Callable[[Found], Planned] | None = None


Announce = Callable[[Draft, Evidence], tuple[DeliveryRow, ...]]
"""What a record of the evidence brings to webhooks, queued in the transaction that writes it."""


@dataclass(slots=True)
class Head:
    """The end of this writer's chain."""

    seq: int
    hash: bytes


@dataclass(slots=True)
class Done:
    """A finished batch: the answers, the chain's new end, and the content that is now stored."""

    values: list[Any] = field(default_factory=list[Any])
    head: Head | None = None
    blobs: list[BlobDraft] = field(default_factory=list[BlobDraft])
    salt: tuple[int, bytes] | None = None
    """The day on which it was committed, and the salt of that day."""


def run_batch(
    connection: Connection,
    jobs: list[Job],
    *,
    ledger: SqlLedger,
    statements: Statements,
    codec: Codec | None,
    writer: str,
    head: Head,
    now_us: int,
    salt_of: Callable[[int], bytes],
    announce: Announce | None = None,
) -> Done:
    """Runs `jobs` in the open transaction of `connection`; the caller commits.

    `salt_of` gives the salt of a day from which content is stored; without a `codec` none is.
    """
    states = _run_states(connection, jobs)
    stale = [j.expect is not None and j.run is not None and states[j.run].revision != j.expect for j in jobs]
    known = _known(connection, jobs, states, stale)
    ops = [op for job, found in zip(jobs, known, strict=True) for op in _ops(job, found)]
    results = iter(ledger.apply(connection, ops, now_us) if ops else ())
    unclosed = _still_open(connection, jobs)
    done = Done()
    pieces: list[Evidence] = []
    for job, found in zip(jobs, known, strict=True):
        mine = tuple(next(results) for _ in _ops(job, found))
        still_open = frozenset(unclosed.intersection(job.calls))
        planned = found.planned.memo if found is not None and found.planned is not None else None
        state = states[job.run] if job.run else UNKNOWN
        wrote = job.then(
            Found(mine, state, still_open)
            if found is None
            else msgspec.structs.replace(found, results=mine, open=still_open, planned=planned)
        )
        if unclosed:
            unclosed.difference_update(close.id for close in wrote.evidence.closes)
        done.values.append(wrote.value)
        pieces.append(wrote.evidence if announce is None else _announced(wrote.evidence, announce))
    drafts, rows = _packed(pieces, codec)
    done.blobs = drafts
    if rows:
        # First of the batch: what it names is there before anything of the batch refers to it.
        pieces.insert(0, Evidence(records=(stored_draft(rows, salt_of, now_us),)))
    done.head, standing = _append(connection, pieces, statements, writer, head, now_us)
    if standing:
        pieces.append(Evidence(checkpoints=tuple(standing)))
    _store(connection, rows, statements)
    statements.write(connection, pieces)
    return done


def _known(
    connection: Connection, jobs: list[Job], states: dict[RunKey, RunState], stale: list[bool]
) -> list[Found | None]:
    """What each job knows before the ledger's part, with what it plans in `planned`; None for stale ones.

    One after the other, so that each sees what the jobs before it add to the counters.
    """
    counted = load_counters(connection, {key for job in jobs for key in job.counters})
    known: list[Found | None] = []
    for job, old in zip(jobs, stale, strict=True):
        if old:
            known.append(None)
            continue
        state = states[job.run] if job.run else UNKNOWN
        used = {key: counted[key] for key in job.counters}
        seen = job.look(connection) if job.look is not None else None
        found = Found((), state, counted=used, seen=seen)
        if job.plan is not None:
            planned = job.plan(found)
            for row in planned.counted:
                counted[CounterKey(*row[:3])] += row.used
            found = msgspec.structs.replace(found, planned=planned)
        known.append(found)
    return known


def _ops(job: Job, found: Found | None) -> tuple[Op, ...]:
    if found is None:
        return ()
    planned: Planned | None = found.planned
    return job.ops if planned is None else planned.ops


def _announced(evidence: Evidence, announce: Announce) -> Evidence:
    rows = [row for draft in evidence.records for row in announce(draft, evidence)]
    return msgspec.structs.replace(evidence, deliveries=(*evidence.deliveries, *rows)) if rows else evidence


def _run_states(connection: Connection, jobs: list[Job]) -> dict[RunKey, RunState]:
    wanted = {job.run for job in jobs if job.run is not None}
    if not wanted:
        return {}
    return load_runs(connection, wanted)


def _still_open(connection: Connection, jobs: list[Job]) -> set[str]:
    """The calls asked about that are open, locked: after the ledger's rows, as where a call is closed."""
    ids = sorted({id_ for job in jobs for id_ in job.calls})
    found: set[str] = set()
    for start in range(0, len(ids), 500):
        asked = calls.c.id.in_(ids[start : start + 500]), calls.c.status == Status.OPEN.value
        query = select(calls.c.id).where(*asked).order_by(calls.c.id).with_for_update()
        found.update(connection.execute(query).scalars())
    return found


def _append(
    connection: Connection,
    pieces: list[Evidence],
    statements: Statements,
    writer: str,
    head: Head,
    now_us: int,
) -> tuple[Head, list[CheckpointRow]]:
    """The chain's new end, and where checkpoints stand that are among the records."""
    seq, previous = head.seq, head.hash
    rows: list[tuple[Any, ...]] = []
    standing: list[CheckpointRow] = []
    for piece in pieces:
        for draft in piece.records:
            seq += 1
            row = Row(writer, seq, draft.kind.value, *draft[1:])
            previous = link(previous, row)
            rows.append((writer, seq, row.kind, *draft[1:], previous))
            if draft.kind is RecordKind.CHECKPOINT:
                standing.append(CheckpointRow(writer, seq, draft.at_us))
    if rows:
        statements.record.run(connection, rows)
        statements.head.run(connection, [(now_us, seq, previous, writer)])
    return Head(seq, previous), standing


def _packed(pieces: list[Evidence], codec: Codec | None) -> tuple[list[BlobDraft], list[BlobRow]]:
    """What the batch stores, each once, and the rows of it in order of their ids."""
    if codec is None:
        return [], []
    drafts = {draft.id: draft for piece in pieces for draft in piece.blobs}
    # In order of id: two writers that store the same content crosswise would wait for each other.
    ordered = [drafts[id_] for id_ in sorted(drafts)]
    packed = codec.pack([draft.content for draft in ordered])
    rows = [
        (draft.id, draft.epoch, name, len(draft.content), data)
        for draft, (name, data) in zip(ordered, packed, strict=True)
    ]
    return list(drafts.values()), rows


def _store(connection: Connection, rows: list[BlobRow], statements: Statements) -> None:
    large = [row for row in rows if len(row[-1]) >= LARGE] if connection.dialect.name == "sqlite" else []
    if large:
        write_large(connection, large)
        rows = [row for row in rows if len(row[-1]) < LARGE]
    statements.blob.run(connection, rows)
