"""Webhooks as operators see them: where events go, what became of each, sending one again or as a test."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, func, select

from llm_proxy.admin.errors import NotFound
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.config import Config
from llm_proxy.config.choices import Event
from llm_proxy.config.names import nearest
from llm_proxy.reactions.events import TEST, addressed
from llm_proxy.reactions.queue import Queue
from llm_proxy.records.tables import deliveries
from llm_proxy.records.times import iso


class Outcome(StrEnum):
    """How a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class WebhookLine(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook of the config, and its deliveries of the last 30 days."""

    id: str
    url: str
    events: tuple[str, ...]
    waiting: int
    delivered: int
    given_up: int
    last_error: str
    """Why the latest failed try of one that waits or was given up failed."""


class DeliveryLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way to one webhook, or at its end."""

    id: str
    webhook: str
    event: str
    status: Outcome
    attempts: int
    created_us: int
    created_at: str
    next_us: int | None
    next_at: str | None
    ended_us: int | None
    ended_at: str | None
    error: str


def webhook_lines(config: Config, connection: Connection | None, limit: int) -> list[WebhookLine]:
    """In the config's order; without a store, nothing was sent yet."""
    counts = _counts(connection) if connection is not None else {}
    errors = _errors(connection, [w.id for w in config.webhooks]) if connection is not None else {}
    return [
        WebhookLine(
            id=webhook.id,
            url=webhook.url,
            events=webhook.events or tuple(Event),
            waiting=counts.get((webhook.id, Outcome.WAITING), 0),
            delivered=counts.get((webhook.id, Outcome.DELIVERED), 0),
            given_up=counts.get((webhook.id, Outcome.GIVEN_UP), 0),
            last_error=errors.get(webhook.id, ""),
        )
        for webhook in config.webhooks[:limit]
    ]


def delivery_lines(
    connection: Connection | None,
    limit: int,
    *,
    webhook: str | None = None,
    status: Outcome | None = None,
    id_: str | None = None,
) -> list[DeliveryLine]:
    """The newest first."""
    if connection is None:
        return []
    d = deliveries.c
    query = select(deliveries).order_by(d.id.desc(), d.webhook).limit(limit)
    for column, value in ((d.webhook, webhook), (d.id, id_)):
        query = query if value is None else query.where(column == value)
    match status:
        case Outcome.WAITING:
            query = query.where(d.next_us.is_not(None))
        case Outcome.DELIVERED:
            query = query.where(d.ended_us.is_not(None), d.error == "")
        case Outcome.GIVEN_UP:
            query = query.where(d.ended_us.is_not(None), d.error != "")
        case None:
            pass
    return [_line(row) for row in connection.execute(query)]


def send_test(config: Config, engine: Engine, webhook: str, now_us: int) -> DeliveryLine:
    """Queues a `webhook.test` event. Raises `NotFound` for a webhook that the config lacks."""
    known = [one.id for one in config.webhooks]
    if webhook not in known:
        raise NotFound(f"The config has no webhook {webhook!r}: {nearest(webhook, known)}")
    rows = addressed([webhook], TEST, {"webhook": webhook, "message": "A test: nothing happened."}, now_us)
    Queue(engine).add(rows)
    with engine.connect() as connection:
        return delivery_lines(connection, 1, id_=rows[0].id)[0]


def redeliver(engine: Engine, id_: str, webhook: str | None, now_us: int) -> list[DeliveryLine]:
    """Queues a delivery anew, for all its webhooks or one. Raises `NotFound`."""
    found = Queue(engine).again(id_, webhook, now_us)
    if not found:
        to = f" to webhook {webhook!r}" if webhook is not None else ""
        raise NotFound(f"There is no delivery {id_!r}{to}: `llm-proxy webhooks deliveries` lists them.")
    with engine.connect() as connection:
        return delivery_lines(connection, len(found), id_=id_, webhook=webhook)


def _counts(connection: Connection) -> dict[tuple[str, Outcome], int]:
    d = deliveries.c
    query = select(d.webhook, d.next_us.is_(None), d.error == "", func.count()).group_by(
        d.webhook, d.next_us.is_(None), d.error == ""
    )
    found: dict[tuple[str, Outcome], int] = {}
    for webhook, ended, fine, count in connection.execute(query):
        outcome = _outcome(ended=ended, fine=fine)
        found[webhook, outcome] = found.get((webhook, outcome), 0) + count
    return found


def _errors(connection: Connection, webhooks: Collection[str]) -> dict[str, str]:
    d = deliveries.c
    found: dict[str, str] = {}
    for webhook in webhooks:
        query = select(d.error).where(d.webhook == webhook, d.error != "").order_by(d.id.desc()).limit(1)
        error = connection.execute(query).scalar()
        if error is not None:
            found[webhook] = error
    return found


def _outcome(*, ended: bool, fine: bool) -> Outcome:
    if not ended:
        return Outcome.WAITING
    return Outcome.DELIVERED if fine else Outcome.GIVEN_UP


def _line(row: Row[Any]) -> DeliveryLine:
    return DeliveryLine(
        id=row.id,
        webhook=row.webhook,
        event=row.event,
        status=_outcome(ended=row.next_us is None, fine=row.error == ""),
        attempts=row.attempts,
        created_us=row.created_us,
        created_at=iso(row.created_us),
        next_us=row.next_us,
        next_at=maybe_iso(row.next_us),
        ended_us=row.ended_us,
        ended_at=maybe_iso(row.ended_us),
        error=row.error,
    )
