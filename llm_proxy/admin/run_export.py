"""A run to take away, as JSON Lines: with its content it can be read and served again without the store.

The first line says what the file is. Then come a `run`, its `call`s, `approval`s, `effect`s and `event`s, its
`record`s as the chain has them, and with `children` the same of every run below it; the last line counts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import Connection, select

from llm_proxy.admin.approvals import ApprovalLine, approval_lines, approval_shown
from llm_proxy.admin.content_read import Seen
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_told import MOST_APPROVALS, events_of
from llm_proxy.admin.runs import stands
from llm_proxy.admin.shown import call_shown, run_line
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.archive.calls import call_views
from llm_proxy.archive.listings import list_calls, list_runs
from llm_proxy.config import Config
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records, runs
from llm_proxy.records.times import iso
from llm_proxy.records.view import CallView, Piece
from llm_proxy.runs.effects import effects_of

FORMAT = "llm-proxy run export"
VERSION = 1
MOST_RUNS = 1_000
MOST_CALLS = 1_000_000
_PAGE = 500
_CONTENT = ("reply", "received", "request", "sent")
Connect = Callable[[], AbstractContextManager[Connection]]
_encode = msgspec.json.Encoder().encode


def run_tree(connection: Connection, root: RunKey) -> list[RunKey]:
    """The run and those below it, each once, at most `MOST_RUNS`; trace links don't count."""
    found = {root: None}
    waiting = [root]
    c = runs.c
    while waiting and len(found) < MOST_RUNS:
        above = waiting.pop(0)
        query = select(c.agent_id, c.run_id).where(
            c.parent_run_id == above.run_id, c.parent_agent_id == above.agent_id
        )
        for agent_id, run_id in connection.execute(query.order_by(c.started_us).limit(MOST_RUNS)):
            key = RunKey(agent_id, run_id)
            if key not in found:
                found[key] = None
                waiting.append(key)
    return list(found)[:MOST_RUNS]


def to_export(
    connection: Connection, run_id: str, agent: str | None, *, children: bool
) -> tuple[list[RunKey], Seen]:
    """The runs that an export holds, and what is seen by it. Raises `NotFound` and `Unclear`."""
    root = find_run(connection, run_id, agent).stored.key
    tree = run_tree(connection, root) if children else [root]
    calls = [id_ for one in tree for id_ in calls_of(connection, one)]
    return tree, Seen(None, calls, root if len(tree) == 1 else None)


def calls_of(connection: Connection, run: RunKey) -> list[str]:
    rows = list_calls(connection, limit=MOST_CALLS, agent=run.agent_id, run=run.run_id, oldest_first=True)
    return [row.id for row in rows]


def export_lines(
    connect: Connect, config: Config, tree: list[RunKey], now_us: int, *, content: bool
) -> Generator[bytes]:
    """A line each, in order. One call's content is in memory at a time.

    No connection is held while a line is on its way: whoever reads slowly would keep it from others.
    """
    root = tree[0]
    counts = {"runs": 0, "calls": 0, "records": 0}
    yield _line(
        "export",
        format=FORMAT,
        version=VERSION,
        run_id=root.run_id,
        agent_id=root.agent_id,
        content=content,
        exported_us=now_us,
        exported_at=iso(now_us),
    )
    for run in tree:
        with connect() as connection:
            about = list(_about(connection, config, run, now_us, content=content))
            calls = calls_of(connection, run)
        yield from about
        for call_id in calls:
            with connect() as connection:
                views = call_views(connection, [call_id], content=content)
            yield from (_line("call", **_call(view, content=content)) for view in views)
        for start in range(0, len(calls), _PAGE):
            with connect() as connection:
                some = _records(connection, calls[start : start + _PAGE], content=content)
            yield from some
            counts["records"] += len(some)
        counts["runs"] += 1
        counts["calls"] += len(calls)
    yield _line("end", **counts)


def _about(
    connection: Connection, config: Config, run: RunKey, now_us: int, *, content: bool
) -> Iterator[bytes]:
    for row in list_runs(connection, limit=1, agent=run.agent_id, run=run.run_id):
        yield _line("run", **_plain(run_line(row, stands(config, connection, row, now_us))))
    asked = ApprovalFilter(agent=run.agent_id, run=run.run_id)
    for one in reversed(approval_lines(connection, now_us, MOST_APPROVALS, asked)):
        told: ApprovalLine = approval_shown(config, connection, now_us, one.id) if content else one
        yield _line("approval", **_plain(told))
    for effect in effects_of(connection, run):
        yield _line("effect", **_plain(effect))
    for event in events_of(connection, run):
        yield _line("event", **_plain(event))


def _call(view: CallView, *, content: bool) -> dict[str, Any]:
    told = _plain(call_shown(view))
    for name in _CONTENT:
        told.pop(name)
    if not content:
        told["decisions"] = [structs.replace(one, arguments="") for one in view.decisions]
        return told
    told |= {
        "request": _bytes(view.request),
        "sent": _bytes(view.sent),
        "emitted": _bytes(view.emitted),
        "released": _bytes(view.released),
        "pieces": [_piece(piece) for piece in view.pieces],
        "rounds": [_piece(piece) for piece in view.rounds],
        "reply": msgspec.to_builtins(view.reply),
    }
    return told


def _piece(piece: Piece) -> dict[str, Any]:
    return {"dialect": piece.dialect, "chars": piece.chars, "emitted": _bytes(piece.emitted)}


def _bytes(content: bytes | None) -> dict[str, str] | None:
    """Exactly as it was: as text where it is UTF-8, else as base64."""
    if content is None:
        return None
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _records(connection: Connection, calls: list[str], *, content: bool) -> list[bytes]:
    """The calls' own, in order; what was read of them is not of the run."""
    c = records.c
    query = select(records).where(c.call_id.in_(calls), c.kind != RecordKind.CONTENT_READ.value)
    rows = connection.execute(query.order_by(c.at_us, c.writer, c.seq))
    return [_record(row, content=content) for row in rows]


def _record(row: Any, *, content: bool) -> bytes:
    told: dict[str, Any] = {
        "writer": row.writer,
        "seq": row.seq,
        "kind": row.kind,
        "at_us": row.at_us,
        "call_id": row.call_id,
        "run_id": row.run_id,
        "agent_id": row.agent_id,
        "hash": bytes(row.hash).hex(),
    }
    if content:
        told["body"] = bytes(row.body).decode()
    return _line("record", **told)


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _line(type_: str, **told: Any) -> bytes:
    return _encode({"type": type_, **told}) + b"\n"
