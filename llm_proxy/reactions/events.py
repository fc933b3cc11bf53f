"""Events for webhooks: which record makes one, who wants it, and the row that carries it there.

An event is queued in the transaction that writes what it tells of: neither is there without the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from llm_proxy.config.choices import Event
from llm_proxy.reactions.approvals import APPROVALS, asked, told
from llm_proxy.records.evidence import NOTHING, DeliveryRow, Draft, Evidence, RecordKind
from llm_proxy.records.ids import uuid7
from llm_proxy.records.times import iso

TEST = "webhook.test"
"""What `llm-proxy webhooks test` sends, to one webhook, whatever events it wants."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events go. `secret` are the bytes that sign them.

    With `content` they hold the arguments of tool calls; `links_for` are operators who get a link of their
    own to decide an approval with.
    """

    id: str
    url: str
    secret: bytes = field(repr=False)
    events: frozenset[str] = frozenset(Event)
    content: bool = False
    links_for: tuple[str, ...] = ()


class Message(msgspec.Struct, frozen=True):
    """The body of a delivery, in the form of Standard Webhooks. `timestamp` is ISO 8601, in UTC."""

    type: str
    timestamp: str
    data: Mapping[str, object]


EVENT_OF: Mapping[RecordKind, Event] = {
    RecordKind.AGENT_FROZEN: Event.AGENT_FROZEN,
    RecordKind.AGENT_THAWED: Event.AGENT_THAWED,
    RecordKind.KEY_ISSUED: Event.KEY_ISSUED,
    RecordKind.KEY_CHANGED: Event.KEY_CHANGED,
    RecordKind.KEY_REVOKED: Event.KEY_REVOKED,
    RecordKind.RUN_ENDED: Event.RUN_ENDED,
    RecordKind.APPROVAL_REQUESTED: Event.APPROVAL_REQUESTED,
    RecordKind.APPROVAL_DECIDED: Event.APPROVAL_DECIDED,
}
"""Records that are events as they stand. `budget.reached` is one of two, and says itself which."""


class Announcer:
    """Turns records into deliveries, for the webhooks of one configuration. Pure but for fresh ids."""

    def __init__(self, webhooks: Iterable[Webhook]) -> None:
        self._webhooks = tuple(webhooks)
        self._wanted = frozenset(event for webhook in self._webhooks for event in webhook.events)

    def wants(self, event: str) -> bool:
        """Whether anybody wants it."""
        return event in self._wanted

    def __call__(self, draft: Draft, beside: Evidence = NOTHING) -> tuple[DeliveryRow, ...]:
        """The deliveries that a record brings about: none for most kinds, and where nobody wants it.

        `beside`: what is written with it, an approval's arguments among that.
        """
        event: str | None = EVENT_OF.get(draft.kind)
        if event is None and draft.kind is not RecordKind.BUDGET_REACHED:
            return ()
        data: dict[str, object] = msgspec.json.decode(draft.body, type=dict[str, object])
        event = event or str(data.pop("event", ""))
        if not self.wants(event):
            return ()
        if draft.kind is RecordKind.APPROVAL_REQUESTED:
            data |= asked(data, beside.approvals)
        ids = {"agent_id": draft.agent_id, "run_id": draft.run_id, "call_id": draft.call_id}
        times = {f"{k[:-3]}_at": iso(v) for k, v in data.items() if k.endswith("_us") and isinstance(v, int)}
        return self.deliveries(event, data | times | {k: v for k, v in ids.items() if v}, draft.at_us)

    def deliveries(self, event: str, data: Mapping[str, object], now_us: int) -> tuple[DeliveryRow, ...]:
        """A row for each webhook that wants `event`; all of them carry one id."""
        wanting = [webhook for webhook in self._webhooks if event in webhook.events]
        if not wanting:
            return ()
        if event not in APPROVALS:
            return addressed([webhook.id for webhook in wanting], event, data, now_us)
        id_ = uuid7(now_us)
        return tuple(
            row
            for content in (False, True)
            for row in addressed(
                [webhook.id for webhook in wanting if webhook.content is content],
                event,
                told(data, content=content),
                now_us,
                id_,
            )
        )


NOBODY = Announcer(())


def addressed(
    webhooks: Iterable[str], event: str, data: Mapping[str, object], now_us: int, id_: str | None = None
) -> tuple[DeliveryRow, ...]:
    """`event` on its way to each of the named webhooks, due at once. Under a new id unless one is given."""
    body = msgspec.json.encode(Message(event, iso(now_us), data)).decode()
    id_ = id_ or uuid7(now_us)
    return tuple(DeliveryRow(id_, webhook, event, body, now_us, now_us) for webhook in webhooks)
