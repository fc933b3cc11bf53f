"""Conversations that a caller goes on from by a response's id, read back from the record."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import structlog
import zstandard
from sqlalchemy import Connection

from llm_proxy.archive.calls import call_view
from llm_proxy.records.responses import find_response
from llm_proxy.records.view import CallView
from llm_proxy.wire.openai_responses.continued import input_items, output_items, previous

log = structlog.get_logger("llm_proxy.reads")

_LONGEST = 1_000
"""Responses in one conversation."""
_DAMAGE = (LookupError, TypeError, ValueError, msgspec.DecodeError, zstandard.ZstdError)
"""What reading raises where a row isn't as it was written."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Everything said before, as input items in order, and the tokens of the newest call: all of it again."""

    items: tuple[bytes, ...]
    tokens: int


def recall(connection: Connection, agent_id: str, response: str) -> Recalled | None:
    """The conversation up to `response`, if this agent had it here and all of it is still kept, and whole."""
    turns: list[list[bytes]] = []
    tokens = 0
    while response:
        call = _call(connection, agent_id, response)
        if call is None or call.request is None or len(turns) >= _LONGEST:
            return None
        received = call.released if call.released is not None else call.emitted
        try:
            turns.append(input_items(call.request) + output_items(received or b""))
            response = previous(call.request)
        except msgspec.DecodeError:
            return None
        if len(turns) == 1 and call.usage is not None:
            tokens = call.usage.total
    turns.reverse()
    return Recalled(tuple(item for turn in turns for item in turn), tokens)


def _call(connection: Connection, agent_id: str, response: str) -> CallView | None:
    found = find_response(connection, agent_id, response)
    if found is None:
        return None
    try:
        return call_view(connection, found.call_id)
    except _DAMAGE as error:
        log.warning("a call can't be read whole", call_id=found.call_id, error=type(error).__name__)
        return None
