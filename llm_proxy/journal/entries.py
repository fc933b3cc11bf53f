"""Turns an exchange into evidence: what is written when a call opens, is refused, and closes."""

from __future__ import annotations

from llm_proxy.exchange import Exchange
from llm_proxy.journal.replies import stored
from llm_proxy.journal.rows import call_row, close_row, grouped, may_begin, proposed, response_rows, run_row
from llm_proxy.journal.told import closed_body, opened_body
from llm_proxy.recorded import digested, settled
from llm_proxy.recording import taken_of, tool_of
from llm_proxy.records import bodies
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import BlobDraft, Draft, Evidence, PriceRow, RecordKind
from llm_proxy.records.view import Status
from llm_proxy.spend.rollup import refused_row, spend_row, tool_rows


def opened(exchange: Exchange, *, begins: bool = True) -> Evidence:
    """What is committed, together with the hold, before the upstream is contacted.

    `begins`: the store may not have the run's row yet.
    """
    content, blobs = _received(exchange)
    body = bodies.encode(opened_body(exchange, content))
    record = _draft(exchange, RecordKind.CALL_OPENED, exchange.started_us, body)
    return Evidence(
        records=(record,),
        blobs=blobs,
        opens=(call_row(exchange, Status.OPEN),),
        runs=(run_row(exchange),) if begins else (),
        traces=(exchange.traced,) if exchange.traced else (),
    )


def refused(exchange: Exchange, addresser: Addresser, now_us: int) -> Evidence:
    """A call that never opened: its content, and why it was refused, in one record."""
    content, blobs = _received(exchange, addresser)
    opened, closed = opened_body(exchange, content), closed_body(exchange)
    body = bodies.encode(bodies.Refused(opened=opened, closed=closed))
    problem = exchange.problem
    return Evidence(
        records=(_draft(exchange, RecordKind.CALL_REFUSED, now_us, body),),
        blobs=blobs,
        opens=(
            call_row(exchange, Status.REFUSED)._replace(
                ended_us=now_us, attempts=0, micro_usd=0, error=problem.kind if problem else None
            ),
        ),
        runs=(run_row(exchange),) if exchange.run_id and may_begin(exchange) else (),
        spend=(refused_row(exchange.started_us, grouped(exchange, "", "")),),
    )


def closed(
    exchange: Exchange, addresser: Addresser, now_us: int, prices: tuple[PriceRow, ...] = ()
) -> Evidence:
    """What is committed, together with the settlement, before the last byte is released.

    `prices`: those that the cost was counted with, as far as the store may not have them.
    """
    blobs: list[BlobDraft] = []
    told = closed_body(exchange, stored(exchange, addresser, now_us, blobs))
    body = bodies.encode(told)
    close = close_row(exchange, now_us)
    target, provider = close.target or "", close.provider or ""
    spend = spend_row(exchange.started_us, grouped(exchange, target, provider), close)
    return Evidence(
        records=(_draft(exchange, RecordKind.CALL_CLOSED, now_us, body),),
        blobs=tuple(blobs),
        closes=(close,),
        responses=response_rows(exchange),
        unseen=(exchange.unseen,) if exchange.unseen and exchange.status is Status.OK else (),
        spend=(spend,),
        tool_spend=tool_rows(spend, proposed(exchange, told.tools)),
        prices=prices,
        prefixes=exchange.prefixes,
    )


def _draft(exchange: Exchange, kind: RecordKind, at_us: int, body: bytes) -> Draft:
    agent = exchange.caller.agent.id if exchange.caller else None
    return Draft(kind, at_us, exchange.id, exchange.run_id or None, agent, body)


def _received(
    exchange: Exchange, addresser: Addresser | None = None
) -> tuple[bodies.Content | None, tuple[BlobDraft, ...]]:
    """The request as it is kept, and what of it is stored now."""
    taken = taken_of(exchange, addresser)
    if taken.content is None:
        return None, taken.blobs
    mask = exchange.record_mask
    content, blobs = settled(taken.content, taken.blobs, taken.pending, mask, tool_of(exchange))
    exchange.request_masked = content.masked
    if not exchange.keeps_content:
        intake = exchange.intake
        return digested(content, exchange.body, intake.holes if intake else ()), ()
    return content, blobs
