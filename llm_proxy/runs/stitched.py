"""Calls that name no run: each goes on with the run whose conversation it goes on with, if there is one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog

from llm_proxy.chat.reply import Assembly, Reply
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.records.audit_rows import PrefixRow
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.prefixes import End, load_ends
from llm_proxy.records.responses import StoredResponse
from llm_proxy.records.view import Status
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.stitching import Threads, gone_on_from
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_responses.conversation import conversation_of
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.retelling import Called
from llm_proxy.wire.sse import FrameTooLarge

_LONGEST = 1 << 20
"""Characters, or bytes, of a reply above which nobody goes on from it without a run id."""
_CHOICES = 8
"""Choices of a reply that may be gone on from."""
_RECENT = 1_000

log = structlog.get_logger("llm_proxy.runs")


class Stitcher:
    """One per worker; used from the event loop only."""

    def __init__(
        self,
        threads: Threads | None,
        lookup: RunLookup,
        addresser: Addresser,
        stored: Callable[[str, str], Awaitable[StoredResponse | None]],
        *,
        strict: bool,
    ) -> None:
        """`threads` is None where calls that name no run stand alone. `strict`: a reply's end is in the store
        before its caller has it."""
        self._threads = threads
        self._lookup = lookup
        self._addresser = addresser
        self._stored = stored
        self._strict = strict
        self._joined: OrderedDict[tuple[str, str], str] = OrderedDict()
        """The newest call of runs that were lately gone on with: the store may not have it yet."""
        self._recent: OrderedDict[tuple[str, str, bytes], End] = OrderedDict()
        """Ends that the store may not have yet."""

    async def join(self, exchange: Exchange) -> None:
        """Settles the run of a call that named none. Raises `ProxyError(store_unavailable)`.

        Reads nothing of the store where the conversation has no turn of a model, nor an id.
        """
        request, caller = exchange.request, exchange.caller
        if self._threads is None or not exchange.run_inferred or request is None or caller is None:
            return
        if request.previous or exchange.fetches:
            if exchange.stored is None:
                exchange.stored = await self._stored(caller.agent.id, request.previous)
            if exchange.stored is not None and exchange.stored.run_id:
                self._go_on(exchange, exchange.stored.run_id)
            return
        whose = _whose(exchange)
        if exchange.dialect.keeps and (name := conversation_of(request)):
            exchange.kept_thread = self._threads.named(whose, name)
            hashes, system = (exchange.kept_thread,), b""
        else:
            addressed = self._addresser.addressed(request.messages)
            thread = self._threads.of(exchange.dialect, request, addressed.ids, whose)
            if thread is None:
                return
            exchange.addressed, exchange.thread = addressed, thread
            hashes, system = thread.ends, thread.system
        if hashes and (end := await self._end(caller.agent.id, caller.key_id, hashes, system)):
            self._go_on(exchange, end.run_id)

    async def _end(self, agent_id: str, key_id: str, hashes: tuple[bytes, ...], system: bytes) -> End | None:
        found = await self._lookup.ask(lambda connection: load_ends(connection, agent_id, key_id, hashes))
        recent = [self._recent.get((agent_id, key_id, hash_)) for hash_ in hashes] if self._recent else []
        known = {end.call_id for end in found}
        found += [end for end in recent if end is not None and end.call_id not in known]
        return gone_on_from(hashes, [self._as_joined(agent_id, end) for end in found], system)

    def _as_joined(self, agent_id: str, end: End) -> End:
        newest = self._joined.get((agent_id, end.run_id), "")
        return end if newest <= end.newest else end._replace(newest=newest)

    def _go_on(self, exchange: Exchange, run_id: str) -> None:
        assert exchange.caller is not None
        exchange.run_id, exchange.stitched = run_id, True
        key = exchange.caller.agent.id, run_id
        self._joined[key] = max(exchange.id, self._joined.get(key, ""))
        self._joined.move_to_end(key)
        if len(self._joined) > _RECENT:
            self._joined.popitem(last=False)

    def ended(self, exchange: Exchange) -> tuple[PrefixRow, ...]:
        """What the conversation of a call that named no run holds now, by which later calls find its run."""
        caller, thread = exchange.caller, exchange.thread
        if self._threads is None or caller is None or exchange.status is not Status.OK:
            return ()
        hashes: dict[bytes, None] = {}
        system = b""
        if exchange.kept_thread:
            hashes[exchange.kept_thread] = None
        elif thread is not None:
            system = thread.system
            for choice in (_released(exchange) or Reply()).choices[:_CHOICES]:
                calls = [Called(call.id, call.arguments) for call in choice.calls]
                if end := self._threads.end(exchange.dialect, thread, choice.text, calls):
                    hashes[end] = None
        agent, key, run = caller.agent.id, caller.key_id, exchange.run_id
        rows = [PrefixRow(agent, key, h, exchange.id, run, system, exchange.started_us) for h in hashes]
        if not self._strict:
            for row in rows:
                self._recent[agent, key, row.hash] = End(row.hash, row.call_id, run, system, row.call_id)
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return tuple(rows)


def _released(exchange: Exchange) -> Reply | None:
    """The reply as its caller has it; None where that is too long, or can't be read."""
    if exchange.released is None:
        assembly = exchange.assembly
        return None if assembly.is_cut or assembly.output_chars > _LONGEST else assembly.reply()
    if sum(map(len, exchange.released)) > _LONGEST:
        return None
    streamed = exchange.request is not None and exchange.request.stream
    got = Assembly()
    try:
        for event in events_of(exchange.dialect, b"".join(exchange.released), streamed=streamed):
            got.add(event)
    except (*CANNOT_READ, FrameTooLarge, ProxyError) as error:
        log.warning("a reply can't be gone on from", call_id=exchange.id, error=type(error).__name__)
        return None
    return got.reply()


def _whose(exchange: Exchange) -> tuple[str, ...]:
    """What keeps conversations of one credential apart, whatever was said in them."""
    hints = exchange.hints
    token = hashlib.sha256(hints.run_token.encode()).hexdigest() if hints.run_token else ""
    return exchange.dialect.name, exchange.user_id, hints.parent_run_id, token
