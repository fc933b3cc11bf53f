"""One-time links by which one person decides one approval: made as an event is sent, kept as hashes.

The secret of a link exists in the delivery that carries it and nowhere else, so it's made when the delivery
goes out and not when it's queued. Each try has links of its own; the first word of a person uses them all up.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.engine import Connection

from llm_proxy.config.approvers import may_approve
from llm_proxy.config.schema import OperatorConfig
from llm_proxy.records.approvals import ApprovalStatus, by_ids, status_at, votes_on
from llm_proxy.records.policy_rows import ApprovalRow, LinkRow
from llm_proxy.records.policy_tables import links

PATH = "/approvals/"
_KEPT_US = 86_400 * 1_000_000
"""How long a link stays known after its end: until then it's told apart from one that never was."""
_FORGOTTEN = 1_000
"""Links that are forgotten at once."""


def hashed(token: str) -> str:
    """What the store keeps of a link's secret."""
    return hashlib.sha256(token.encode()).hexdigest()


class LinkTold(msgspec.Struct, frozen=True):
    """As an event carries it."""

    operator: str
    url: str


@dataclass(frozen=True, slots=True)
class Links:
    """The table, behind an engine; every method blocks."""

    engine: Engine
    public_url: str
    operators: Sequence[OperatorConfig]
    now_us: Callable[[], int]

    def signed(self, body: str, wanted: Iterable[str]) -> str:
        """The body of an `approval.requested` with a link for each of the `wanted` who may decide it now.

        The links are good once this returns. Without any where the approval is decided, or over.
        """
        message = msgspec.json.decode(body, type=dict[str, object])
        data = msgspec.convert(message["data"], dict[str, object])
        rows: list[LinkRow] = []
        told: list[LinkTold] = []
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            approval = self._pending(connection, str(data.get("id", "")))
            for operator in self._open_to(connection, approval, wanted) if approval is not None else ():
                assert approval is not None
                token = secrets.token_urlsafe(32)
                rows.append(LinkRow(hashed(token), approval.id, operator, approval.expires_us))
                told.append(LinkTold(operator, f"{self.public_url}{PATH}{approval.id}?token={token}"))
            if rows:
                connection.execute(insert(links), [row._asdict() for row in rows])
        return msgspec.json.encode(message | {"data": data | {"links": told}}).decode()

    def tidy(self) -> None:
        """Forgets links that ended a day ago."""
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            old = (
                select(links.c.sha256).where(links.c.expires_us < self.now_us() - _KEPT_US).limit(_FORGOTTEN)
            )
            connection.execute(delete(links).where(links.c.sha256.in_(old)))

    def _pending(self, connection: Connection, id_: str) -> ApprovalRow | None:
        found = by_ids(connection, [id_])
        waits = found and status_at(found[0], self.now_us()) is ApprovalStatus.PENDING
        return found[0] if waits else None

    def _open_to(self, connection: Connection, approval: ApprovalRow, wanted: Iterable[str]) -> list[str]:
        """Those of the `wanted` who may decide it and haven't yet."""
        approvers = msgspec.json.decode(approval.approvers, type=tuple[str, ...])
        spoke = {vote.operator for vote in votes_on(connection, approval.id)}
        may = {operator.id for operator in self.operators if may_approve(operator, approvers)}
        return [id_ for id_ in dict.fromkeys(wanted) if id_ in may - spoke]
