"""Responses by their ids: which call made each, where it is kept, and which of its calls were denied.

OpenAI's Responses API lets a request go on from a stored response, and fetch one that was made in the
background. An agent may name only what it was given itself.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records.tables import calls, responses


class DeniedCall(msgspec.Struct, frozen=True, array_like=True):
    """A call that its provider remembers and the agent never saw: the next request has to answer it."""

    id: str
    custom: bool
    note: str


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens` is all that the conversation held up to its end, 0 where that isn't known."""

    id: str
    call_id: str
    model: str
    target: str
    charged: bool
    run_id: str = ""
    """The run that it was given to; empty where that isn't known any more."""
    denied: tuple[DeniedCall, ...] = ()
    tokens: int = 0


_denied = msgspec.json.Decoder(tuple[DeniedCall, ...]).decode


def find_response(connection: Connection, agent_id: str, id_: str) -> StoredResponse | None:
    """The response, if this agent was given it."""
    r = responses.c
    query = (
        select(
            *(r.call_id, r.model, r.target, r.charged, r.denied),
            *(calls.c.run_id, calls.c.input_tokens, calls.c.output_tokens),
        )
        .join(calls, calls.c.id == r.call_id, isouter=True)
        .where(r.id == id_, r.agent_id == agent_id)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    return StoredResponse(
        id=id_,
        call_id=row.call_id,
        model=row.model,
        target=row.target,
        charged=row.charged,
        run_id=row.run_id or "",
        denied=_denied(row.denied),
        tokens=(row.input_tokens or 0) + (row.output_tokens or 0),
    )
