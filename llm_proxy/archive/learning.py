"""Learning tools from the record: what was called and judged, what was called unjudged, what was declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from llm_proxy.archive.calls import each_view
from llm_proxy.archive.judged import Wanted, pages
from llm_proxy.errors import ProxyError
from llm_proxy.policy.canonical import Json
from llm_proxy.policy.declared import declarations
from llm_proxy.policy.learn import Learning
from llm_proxy.policy.past import proposed
from llm_proxy.records import bodies
from llm_proxy.records.arguments import addresses_of, with_arguments
from llm_proxy.records.blobs import fetch
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.prepared import select_in
from llm_proxy.records.view import CallView
from llm_proxy.records.view import Decision as Recorded
from llm_proxy.wire.dialects import DIALECTS

_AT_ONCE = 20
"""Calls whose content is read together."""


class _Closed(msgspec.Struct, frozen=True):
    tools: tuple[str, ...] = ()


_closed = msgspec.json.Decoder(_Closed).decode


class _Page(NamedTuple):
    """Calls of one page: `judged` with their verdicts, `unjudged` that proposed tools without any."""

    judged: dict[str, list[Recorded]]
    unjudged: list[str]
    runs: dict[str, tuple[str, str]]


def learn(
    connection: Connection, wanted: Wanted, into: Learning, done: Callable[[int], None], most: int
) -> int:
    """Adds what calls did to `into`; how many were read, at most `most`, the oldest first.

    Bodies are read only of calls that were not judged, and of a few for each tool's declaration.
    """
    read = 0
    for ids, _ in pages(connection, wanted):
        some = ids[: most - read]
        _learn_page(connection, _page(connection, some), into)
        read += len(some)
        done(read)
        if read >= most:
            break
    return read


def _page(connection: Connection, ids: list[str]) -> _Page:
    judged: dict[str, list[Recorded]] = {}
    runs: dict[str, tuple[str, str]] = {}
    named: list[str] = []
    verdicts: list[tuple[str, bodies.Verdicts]] = []
    for row in select_in(connection, "kind, call_id, agent_id, run_id, body", "records", "call_id", ids):
        kind, call_id, agent_id, run_id, body = row
        runs[call_id] = (agent_id or "", run_id or "")
        if kind == RecordKind.VERDICTS:
            verdicts.append((call_id, bodies.read_verdicts(bytes(body))))
        elif kind == RecordKind.CALL_CLOSED and _closed(bytes(body)).tools:
            named.append(call_id)
    wanted = {address for _, each in verdicts for address in addresses_of(each)}
    blobs = fetch(connection, wanted)
    for call_id, each in verdicts:
        judged.setdefault(call_id, []).extend(with_arguments(each, blobs))
    return _Page(judged, [id_ for id_ in named if id_ not in judged], runs)


def _learn_page(connection: Connection, page: _Page, into: Learning) -> None:
    declaring: dict[str, None] = {}
    for call_id, decisions in page.judged.items():
        for call in [proposed(decision) for decision in decisions if decision.kept]:
            into.called(call.name, call.arguments, *page.runs[call_id])
            if into.declaration_wanted(call.name):
                declaring[call_id] = None
    for view in each_view(connection, page.unjudged):
        for choice in view.reply.choices if view.reply else ():
            for call in choice.calls:
                text = call.arguments
                if call.custom:
                    text = msgspec.json.encode({"input": text}).decode()
                into.called(call.name, text, view.agent_id, view.run_id)
        _declare(view, into)
    for view in each_view(connection, list(declaring)[:_AT_ONCE]):
        _declare(view, into)


def _declare(view: CallView, into: Learning) -> None:
    if not view.request:
        return
    try:
        tools = DIALECTS[view.dialect].parse(view.request).tools
        declared: Json = msgspec.json.decode(tools) if tools else None
    except (ProxyError, msgspec.DecodeError, UnicodeError):
        return
    for tool in declarations(declared):
        into.declared(tool)
