"""The records that spans tell, made into what the exporter takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.archive.calls import call_views
from llm_proxy.archive.run_facts import RunTrees
from llm_proxy.records.evidence import RecordKind, tool_call_key
from llm_proxy.records.prepared import select_in
from llm_proxy.records.tables import calls, records, tool_calls
from llm_proxy.records.view import CallView
from llm_proxy.telemetry.items import Befallen, Item, Proposal, RunFacts, RunRef
from llm_proxy.wire.action import ACTION

log = structlog.get_logger("llm_proxy.telemetry")

ENDINGS = frozenset({RecordKind.CALL_CLOSED.value, RecordKind.CALL_REFUSED.value})
_BEFALL = frozenset({RecordKind.RUN_ENDED.value, RecordKind.RUN_EFFECT.value, RecordKind.RUN_EVENT.value})
TOLD = ENDINGS | _BEFALL | {RecordKind.RUN_OPENED.value}
"""The kinds of records that become spans."""


class Record(NamedTuple):
    """A row of `records`, less what it says."""

    writer: str
    seq: int
    kind: str
    at_us: int
    call_id: str | None
    run_id: str | None
    agent_id: str | None

    @property
    def run(self) -> RunRef:
        return RunRef(self.agent_id or "", self.run_id or "")


COLUMNS = tuple(records.c[name] for name in Record._fields)


def items_of(connection: Connection, rows: Sequence[Record], trees: RunTrees) -> list[Item]:
    """In the order of `rows`. What can't be read any more is left out: a call's content, or all of it."""
    ids = [row.call_id for row in rows if row.kind in ENDINGS and row.call_id]
    views = {view.id: view for view in _views(connection, ids)}
    runs = trees.find(connection, [row.run for row in rows])
    began = _began(connection, ids)
    answers = _answers(connection, views.values())
    said = _said(connection, [row for row in rows if row.kind in _BEFALL])
    items: list[Item] = []
    for row in rows:
        run = runs.get(row.run)
        if row.kind in ENDINGS:
            view = views.get(row.call_id or "")
            if view is None:
                continue
            begins = run is not None and began.get(view.id) == run.started_us
            answered = tuple(answers.get(view.id, ()))
            items.append(_item(row, call=view, run=run, begins=begins, answers=answered))
        elif row.kind in _BEFALL:
            what = Befallen(kind=row.kind, at_us=row.at_us, told=said.get((row.writer, row.seq), {}))
            items.append(_item(row, run=run, befallen=what))
        else:
            items.append(_item(row, run=run, begins=True))
    return items


def _views(connection: Connection, ids: list[str]) -> list[CallView]:
    """The calls. One that was damaged in the store must not hold up all the others for ever."""
    try:
        return call_views(connection, ids)
    except (SQLAlchemyError, OSError):
        raise
    except Exception:  # noqa: BLE001  whatever the damage comes to
        return [view for id_ in ids for view in _damaged(connection, id_)]


def _damaged(connection: Connection, id_: str) -> list[CallView]:
    """As much of it as can be read."""
    for content in (True, False):
        try:
            return call_views(connection, [id_], content=content)
        except (SQLAlchemyError, OSError):
            raise
        except Exception as error:  # noqa: BLE001  as above
            log.warning("a call can't be read whole", call_id=id_, error=type(error).__name__)
    return []


def _began(connection: Connection, ids: list[str]) -> dict[str, int]:
    """When the calls began, exactly: the record of a refused one says only when it was refused."""
    return dict(select_in(connection, "id, started_us", "state_calls", "id", ids)) if ids else {}


def _item(
    row: Record,
    *,
    call: CallView | None = None,
    run: RunFacts | None,
    begins: bool = False,
    answers: tuple[Proposal, ...] = (),
    befallen: Befallen | None = None,
) -> Item:
    return Item(
        writer=row.writer,
        seq=row.seq,
        call=call,
        run=run,
        begins=begins,
        answers=answers,
        befallen=befallen,
    )


def _answers(connection: Connection, views: Iterable[CallView]) -> dict[str, list[Proposal]]:
    """By call: the tool calls, released before in its run, whose results came in with it."""
    found: dict[str, list[Proposal]] = {}
    for view in views:
        wanted = {tool_call_key(result.tool_call_id) for result in view.results if result.known}
        if wanted:
            found[view.id] = _proposals(connection, view, wanted)
    traces = _traces(connection, {p.call_id for some in found.values() for p in some})
    return {
        id_: [msgspec.structs.replace(p, traceparent=traces.get(p.call_id, "")) for p in some]
        for id_, some in found.items()
    }


def _proposals(connection: Connection, view: CallView, wanted: set[str]) -> list[Proposal]:
    """The newest of each id: ids are unique within a reply, not within a run."""
    c = tool_calls.c
    query = (
        select(c.tool_call_id, c.tool, c.call_id, c.choice, c.position, c.at_us)
        .join(calls, calls.c.id == c.call_id)
        .where(c.agent_id == view.agent_id, c.run_id == view.run_id, c.tool_call_id.in_(wanted))
        .where(c.at_us <= view.started_us, c.call_id != view.id, calls.c.dialect != ACTION.name)
        .order_by(c.at_us, c.call_id, c.position)
    )
    newest = {
        row.tool_call_id: Proposal(
            tool_call_id=row.tool_call_id,
            tool=row.tool,
            call_id=row.call_id,
            choice=row.choice,
            index=row.position,
            at_us=row.at_us,
        )
        for row in connection.execute(query)
    }
    return list(newest.values())


class _Traced(msgspec.Struct):
    traceparent: str = ""


_read_traced = msgspec.json.Decoder(_Traced).decode


def _traces(connection: Connection, ids: set[str]) -> dict[str, str]:
    """The `traceparent` of those calls that came with one."""
    if not ids:
        return {}
    rows = select_in(connection, "call_id, kind, body", "records", "call_id", list(ids))
    opened = ((id_, body) for id_, kind, body in rows if kind == RecordKind.CALL_OPENED.value)
    return {id_: _traceparent(bytes(body)) for id_, body in opened}


def _traceparent(body: bytes) -> str:
    try:
        return _read_traced(body).traceparent
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _said(connection: Connection, rows: Sequence[Record]) -> dict[tuple[str, int], dict[str, str]]:
    """What the records say, by their places: those of their fields that are text and not empty."""
    if not rows:
        return {}
    c = records.c
    places = [(row.writer, row.seq) for row in rows]
    found = connection.execute(select(c.writer, c.seq, c.body).where(tuple_(c.writer, c.seq).in_(places)))
    return {(writer, seq): _texts(bytes(body)) for writer, seq, body in found}


def _texts(body: bytes) -> dict[str, str]:
    try:
        told: dict[str, object] = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {key: value for key, value in told.items() if isinstance(value, str) and value}
