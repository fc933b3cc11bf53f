"""What the policy judged, read back in the order in which it happened, a page of calls at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any, NamedTuple

import msgspec
from msgspec import structs
from sqlalchemy import ColumnElement, Connection, func, or_, select

from llm_proxy.archive.content import read_body
from llm_proxy.errors import ProxyError
from llm_proxy.policy.context import AgentFacts, UserFacts
from llm_proxy.policy.past import Came, Event, Judged, RunId, Start, key
from llm_proxy.records import bodies
from llm_proxy.records.arguments import addresses_of, with_arguments
from llm_proxy.records.blobs import fetch
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.prepared import select_in
from llm_proxy.records.tables import calls, records, runs
from llm_proxy.records.view import ToolResultView
from llm_proxy.wire.dialects import DIALECTS

_PAGE = 500
_COLUMNS = "kind, at_us, call_id, run_id, agent_id, body, seq"


class Wanted(NamedTuple):
    """Calls that began from `since_us` on and before `until_us` (Unix µs), of one agent and one run."""

    since_us: int | None = None
    until_us: int | None = None
    agent: str | None = None
    run: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.since_us is not None:
            yield calls.c.started_us >= self.since_us
        if self.until_us is not None:
            yield calls.c.started_us < self.until_us
        if self.agent is not None:
            yield calls.c.agent_id == self.agent
        if self.run is not None:
            yield calls.c.run_id == self.run


class _Opened(msgspec.Struct, frozen=True):
    """As much of an opening record as matters here."""

    team: str = ""
    role: str = ""
    user_id: str = ""
    user_verified: bool = False
    results: tuple[ToolResultView, ...] = ()


_opened = msgspec.json.Decoder(_Opened).decode
_NOTHING = _Opened()


class StoredPast:
    """The record as `policy.past.Past`. `connection` must see one moment throughout.

    `agents` and `environment` stand in where a verdict doesn't say how its agent was configured.
    """

    def __init__(self, connection: Connection, agents: Callable[[str], AgentFacts], environment: str) -> None:
        self._connection = connection
        self._agents = agents
        self._environment = environment

    def events(self, wanted: Wanted, done: Callable[[int], None] | None = None) -> Iterator[Event]:
        """In order. `done` is told how many calls were read, a page at a time."""
        waiting: list[tuple[tuple[int, str, int], Event]] = []
        read = 0
        for ids, frontier in pages(self._connection, wanted):
            for event in self._of(ids):
                heappush(waiting, (key(event), event))
            while waiting and waiting[0][0][0] < frontier:
                yield heappop(waiting)[1]
            read += len(ids)
            if done is not None:
                done(read)
        while waiting:
            yield heappop(waiting)[1]

    def count(self, wanted: Wanted) -> int:
        """Calls that `events` would read."""
        query = select(func.count()).select_from(calls).where(*wanted.conditions())
        return self._connection.execute(query).scalar_one()

    def start(self, run: RunId) -> Start:
        query = select(runs.c.started_us, runs.c.role_at_start).where(
            runs.c.agent_id == run.agent_id, runs.c.run_id == run.run_id
        )
        row = self._connection.execute(query).first()
        return Start() if row is None else Start(row.started_us / 1e6, row.role_at_start)

    def before(self, event: Event) -> Iterator[Event]:
        wanted = Wanted(until_us=event.at_us + 1, agent=event.run.agent_id, run=event.run.run_id)
        for earlier in self.events(wanted):
            if key(earlier) < key(event):
                yield earlier

    def of_call(self, call_id: str) -> list[Judged]:
        """The verdicts of one call, in order; more than one where the model was asked again."""
        found = sorted(self._of([call_id]), key=key)
        return [event for event in found if isinstance(event, Judged)]

    def user_text(self, event: Judged) -> str:
        query = select(records.c.body).where(
            records.c.call_id == event.call_id, records.c.kind == RecordKind.CALL_OPENED
        )
        row = self._connection.execute(query).first()
        if row is None:
            return ""
        opened = bodies.read_opened(bytes(row.body))
        body = read_body(self._connection, opened.content)
        dialect = DIALECTS[opened.dialect]
        try:
            messages = dialect.parse(body).messages if body else ()
            return "\n".join(dialect.message_facts(raw).user_text for raw in messages)
        except ProxyError:
            return ""

    def _of(self, ids: Sequence[str]) -> Iterator[Event]:
        """What the calls `ids` did, in no order."""
        rows = select_in(self._connection, _COLUMNS, "records", "call_id", ids)
        opened = {row[2]: _opened(bytes(row[5])) for row in rows if row[0] == RecordKind.CALL_OPENED}
        blobs = self._arguments(rows)
        for kind, at_us, call_id, run_id, agent_id, body, seq in rows:
            run, about = RunId(agent_id or "", run_id or ""), opened.get(call_id, _NOTHING)
            if kind == RecordKind.CALL_OPENED and about.results:
                yield Came(at_us, seq, run, call_id, about.results)
            elif kind == RecordKind.VERDICTS:
                verdicts = bodies.read_verdicts(bytes(body))
                verdicts = structs.replace(verdicts, decisions=with_arguments(verdicts, blobs))
                yield self._judged(at_us, seq, run, call_id, verdicts, about)

    def _arguments(self, rows: Sequence[Any]) -> dict[bytes, bytes]:
        """Those of the verdicts among the rows."""
        bodies_ = [bodies.read_verdicts(bytes(row[5])) for row in rows if row[0] == RecordKind.VERDICTS]
        wanted = {address for verdicts in bodies_ for address in addresses_of(verdicts)}
        return fetch(self._connection, wanted) if wanted else {}

    def _judged(
        self, at_us: int, seq: int, run: RunId, call_id: str, verdicts: bodies.Verdicts, about: _Opened
    ) -> Judged:
        facts = verdicts.context
        if facts is None:
            agent = replace(self._agents(run.agent_id), team=about.team, role=about.role)
            user, env = UserFacts(about.user_id, verified=about.user_verified), self._environment
        else:
            was = facts.agent
            agent = AgentFacts(run.agent_id, was.team, was.role, was.owner, was.scopes, was.tools)
            user = UserFacts(facts.user.id, facts.user.role, facts.user.clearance, facts.user.verified)
            env = facts.env
        return Judged(at_us, seq, run, call_id, verdicts.decisions, agent, user, env, facts)


def pages(connection: Connection, wanted: Wanted) -> Iterator[tuple[list[str], int]]:
    """Ids of calls in the order in which they began, and when the last of them did."""
    query = select(calls.c.id, calls.c.started_us).where(*wanted.conditions())
    query = query.order_by(calls.c.started_us, calls.c.id).limit(_PAGE)
    after: tuple[int, str] | None = None
    while True:
        some = query if after is None else query.where(*_after(*after))
        rows = connection.execute(some).all()
        if not rows:
            return
        after = (rows[-1].started_us, rows[-1].id)
        yield [row.id for row in rows], after[0]
        if len(rows) < _PAGE:
            return


def _after(started_us: int, id_: str) -> tuple[ColumnElement[bool], ...]:
    """Calls behind that one, in a way that lets an index find them."""
    began = calls.c.started_us
    return began >= started_us, or_(began > started_us, calls.c.id > id_)
