"""Keeps the holds of live calls, and ends those of dead ones: an unfinished call is charged and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from budgets import Correct, Expire, Renew
from budgets.sql_store import METADATA as LEDGER
from llm_proxy.admission import LEASE_US
from llm_proxy.approving import expire
from llm_proxy.chat.events import Usage
from llm_proxy.errors import ProxyError
from llm_proxy.reactions.alerts import SILENT, Alerts, with_records
from llm_proxy.records import bodies
from llm_proxy.records.approvals import overdue
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import NOTHING, CallClose, Draft, Evidence, RecordKind
from llm_proxy.records.leases import Lease
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.records.tables import calls, records
from llm_proxy.records.view import CostLabel, Problem, Status
from llm_proxy.records.writer import Writer
from llm_proxy.spend.rollup import Grouped, spend_row

log = structlog.get_logger("llm_proxy.recovery")

EVERY_S = 2.0
_DOWN_S = 1.0
"""While the store is down: it's by this that the worker learns of its return."""
_EXPIRED_AT_ONCE = 200
RENEW_AFTER_US = 8_000_000
"""Calls younger than this still have most of their first lease."""


class Recovery:
    """One per worker. `active` maps the ids of the worker's open calls to when they began (Unix µs)."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        active: dict[str, int],
        now_us: Callable[[], int],
        alerts: Alerts = SILENT,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._active = active
        self._now_us = now_us
        self._alerts = alerts
        self._lease = Lease(engine, "recovery", writer.id, now_us)

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            try:
                await self.step()
            except (ProxyError, SQLAlchemyError, OSError) as error:
                log.warning("recovery waits for the store", error=type(error).__name__)
            await asyncio.sleep(EVERY_S if self._writer.healthy else _DOWN_S)

    async def step(self) -> int:
        """Renews, expires and closes; returns how many dead calls were closed."""
        now = self._now_us()
        old = tuple(id_ for id_, began in self._active.items() if began < now - RENEW_AFTER_US)
        renew = (Renew(old, now + LEASE_US),) if old else ()
        evidence = NOTHING if self._writer.healthy else _back(now)

        def then(found: Found) -> Wrote:
            return Wrote(
                found.results, with_records(evidence, self._alerts.reached(found.results, None, now))
            )

        self._alerts.count(await self._writer.submit(Job(then, ops=(*renew, Expire(now)))))
        if not await asyncio.to_thread(self._lease.lead):
            return 0
        await self._expire_approvals()
        dead = await asyncio.to_thread(self._dead)
        closed: int = await self._writer.submit(_closing(dead, self._now_us())) if dead else 0
        if closed:
            log.warning("calls of a proxy that died were closed as interrupted", calls=closed)
        return closed

    async def _expire_approvals(self) -> None:
        """Marks those on which nobody decided in time. Each is a job of its own run, as a vote is."""
        now = self._now_us()
        late = await asyncio.to_thread(self._overdue, now)
        await asyncio.gather(*[self._writer.submit(expire(approval, now)) for approval in late])

    def _overdue(self, now_us: int) -> list[ApprovalRow]:
        with self._engine.connect() as connection:
            return overdue(connection, now_us, _EXPIRED_AT_ONCE)

    def _dead(self) -> list[_Dead]:
        """Open calls that nobody holds any more."""
        with self._engine.connect() as connection:
            return _open_without_hold(connection)


def _back(now_us: int) -> Evidence:
    """Written where the store could not be: only a record that is taken proves that it can be again."""
    return Evidence(records=(Draft(RecordKind.STORE_BACK, now_us, None, None, None, b"{}"),))


class _Dead(NamedTuple):
    """An unfinished call, with the body of its opening record and what it's summed up by."""

    id: str
    run_id: str
    opened: bytes
    started_us: int
    grouped: Grouped


def _open_without_hold(connection: Connection) -> list[_Dead]:
    holds = LEDGER.tables["state_holds"]
    query = (
        select(
            *(calls.c.id, calls.c.run_id, records.c.body, calls.c.started_us),
            *(calls.c.agent_id, calls.c.team, calls.c.user_id, calls.c.model, calls.c.tags),
        )
        .select_from(
            calls.join(records, records.c.call_id == calls.c.id).outerjoin(holds, holds.c.id == calls.c.id)
        )
        .where(
            calls.c.status == Status.OPEN.value,
            records.c.kind == RecordKind.CALL_OPENED.value,
            (holds.c.id.is_(None)) | (holds.c.expired_us.is_not(None)),
        )
        .limit(1_000)
    )
    return [
        _Dead(id_, run, bytes(body), started, Grouped(agent, team, user, model, "", "", tags))
        for id_, run, body, started, agent, team, user, model, tags in connection.execute(query)
    ]


def _closing(dead: list[_Dead], now_us: int) -> Job:
    """Closes those of `dead` that nobody closed since they were found; its value is how many that were."""

    def then(found: Found) -> Wrote:
        left = [call for call in dead if call.id in found.open]
        return Wrote(len(left), _interrupted(left, now_us))

    # What their expiry charged stands: a process that is alive after all must not correct it any more.
    ops = tuple(Correct(call.id, None) for call in dead)
    return Job(then, ops=ops, calls=tuple(call.id for call in dead))


def _interrupted(dead: list[_Dead], now_us: int) -> Evidence:
    drafts: list[Draft] = []
    closes: list[CallClose] = []
    for id_, run, opened, _, grouped in dead:
        floor = _floor(id_, opened)
        usage = Usage(input=floor.get("input_tokens", 0))
        cost = floor.get("micro_usd", 0)
        body = bodies.Closed(
            status=Status.INTERRUPTED,
            usage=usage,
            cost_micro_usd=cost,
            cost_label=CostLabel.PARTIAL,
            requests=floor.get("requests", 0),
            problem=Problem(
                kind="interrupted",
                message="The proxy died during the call; what the caller had received by then is not known.",
            ),
        )
        draft = Draft(RecordKind.CALL_CLOSED, now_us, id_, run, grouped.agent_id, bodies.encode(body))
        drafts.append(draft)
        closes.append(
            CallClose(
                status=Status.INTERRUPTED.value,
                ended_us=now_us,
                target=None,
                provider=None,
                attempts=0,
                input_tokens=usage.input,
                output_tokens=0,
                cached_tokens=0,
                cache_write_tokens=0,
                reasoning_tokens=0,
                micro_usd=cost,
                lost_micro_usd=0,
                cost_label=CostLabel.PARTIAL.value,
                price=None,
                error="interrupted",
                id=id_,
            )
        )
    ended = zip(dead, closes, strict=True)
    spend = tuple(spend_row(call.started_us, call.grouped, close) for call, close in ended)
    return Evidence(records=tuple(drafts), closes=tuple(closes), spend=spend)


def _floor(id_: str, opened: bytes) -> dict[str, int]:
    """What its hold charged; nothing where the record can't be read, which must not keep it open for ever."""
    try:
        return bodies.read_opened(opened).floor
    except msgspec.DecodeError as error:
        log.error("an opening record can't be read", call_id=id_, error=type(error).__name__)
        return {}
