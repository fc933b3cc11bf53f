"""Calls with prompts, replies and reasoning in a store, indexed for search: shared by the tests of search."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Engine

from llm_proxy.archive.search import Hits, SearchWish, search
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.exchange import Exchange
from llm_proxy.records.blobs import KEPT, ensure_salt
from llm_proxy.records.view import Status
from tests.stores import Clock, Desk, body_of


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def told(
    text: str = "", *, reasoning: str = "", calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
) -> bytes:
    """A reply's body; each of `calls` is (id, tool, arguments)."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
            for id_, tool, arguments in calls
        ]
    return json.dumps(
        {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    ).encode()


async def held(desk: Desk, reply: bytes, *messages: dict[str, Any], run: str = "run-1") -> Exchange:
    """One call, from its request to its end."""
    exchange = await desk.open(body_of(*messages), run)
    exchange.emitted.write(reply)
    exchange.status = Status.OK
    await desk.close(exchange)
    return exchange


def indexer(engine: Engine, clock: Clock, holder: str = "w") -> Indexer:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        ensure_salt(connection, KEPT)
    return Indexer(engine, holder, clock)


def index(engine: Engine, clock: Clock) -> None:
    assert indexer(engine, clock).catch_up(30).records == 0


def found(engine: Engine, text: str, **more: Any) -> Hits:
    with engine.connect() as connection:
        return search(connection, SearchWish(text=text, **more))


def texts(hits: Hits) -> list[str]:
    return [hit.snippet.text if hit.snippet else "" for hit in hits.hits]


def marked(hits: Hits) -> list[list[str]]:
    """What is marked in each snippet."""
    return [
        [hit.snippet.text[start:end] for start, end in hit.snippet.marks] if hit.snippet else []
        for hit in hits.hits
    ]
