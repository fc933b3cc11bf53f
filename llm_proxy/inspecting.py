"""Looks at the tool results of a request: what they hold, and what of it is redacted.

A result is looked at once, however often an agent sends it again. What a call's results mean for its run is
settled with its admission, in one transaction; what goes upstream of them is edited after it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.judging import Rules
from llm_proxy.lately import Lately
from llm_proxy.policy.vocabulary import Detector, Replacement
from llm_proxy.records.evidence import tool_call_key
from llm_proxy.records.policy_rows import ClassifiedRow
from llm_proxy.records.runstate import Mark, RunKey, RunState
from llm_proxy.redacting.masking import Guard
from llm_proxy.redacting.rules import Redaction, redaction_of
from llm_proxy.redacting.scanned import Scanned, TooManyValues, scan
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.results import ResultAt
from llm_proxy.wire.spans import Edit, splice

_REMEMBERED = 8_192
_MEMORY = 1 << 24
"""Bytes that are remembered under one policy."""
_LARGE = 1 << 16
"""Bytes of a message from which it is looked at in a thread of its own."""
_POLICIES = 4
"""Policies whose memory is kept: that in force, and those that calls began under."""

Classified = Callable[[RunKey], list[ClassifiedRow]]
_Place = tuple[Callable[[bytes], tuple[ResultAt, ...]] | None, bytes]


@dataclass(slots=True)
class _Memory:
    """What one policy's rules found in messages, by who finds results in them and by their addresses."""

    redaction: Redaction
    messages: Lately[_Place, tuple[Scanned, ...]] = field(
        default_factory=lambda: Lately[_Place, tuple[Scanned, ...]](_REMEMBERED, _MEMORY)
    )


class Inspector:
    """One per worker. `secret` is the store's (`blobs.KEPT`); `classified` blocks."""

    def __init__(self, secret: bytes, address: Callable[[bytes], bytes], classified: Classified) -> None:
        self._secret = secret
        self._address = address
        self._classified = classified
        self._memories: OrderedDict[str, _Memory] = OrderedDict()
        self.scanned = 0
        """Messages that were looked at, and not remembered."""

    def redaction(self, rules: Rules) -> Redaction:
        """The `redact` rules of a policy, compiled once."""
        return self._memory(rules).redaction

    def _memory(self, rules: Rules) -> _Memory:
        memory = self._memories.get(rules.sha256)
        if memory is None:
            memory = _Memory(redaction_of(rules.engine.policy.file, self._secret))
            self._memories[rules.sha256] = memory
            if len(self._memories) > _POLICIES:
                self._memories.popitem(last=False)
        return memory

    async def look(self, exchange: Exchange, rules: Rules | None) -> None:
        """Reads the results of a request that is about to be admitted. Raises `ProxyError(policy_denied)`."""
        intake, request = exchange.intake, exchange.request
        exchange.arrived, exchange.redaction = (), None
        if rules is None:
            return
        exchange.redaction = self.redaction(rules)
        if intake is None or request is None or not intake.results:
            return
        found = await self._messages(request, intake.messages, exchange.dialect, rules)
        most = rules.engine.policy.file.input.max_result_bytes
        for result in (result for message in found for result in message):
            if result.size > most and not rules.shadow:
                raise ProxyError(
                    Kind.POLICY_DENIED,
                    f"The result of tool call {result.id[:80]!r} holds {result.size} bytes; the policy takes "
                    f"{most} (input.max_result_bytes). Send less of it.",
                    retryable=False,
                )
        exchange.arrived = tuple(found)

    async def prepare(self, exchange: Exchange, rules: Rules | None, state: RunState | None) -> None:
        """Settles how an admitted call is redacted: its request's edits, and what guards its reply."""
        if rules is None or rules.shadow:
            return
        redaction = self.redaction(rules)
        if redaction.results and state is not None and exchange.request is not None:
            await self._redact(exchange, rules, redaction, state)
        exchange.guard = await self._guard(exchange, redaction, state)

    async def _redact(self, exchange: Exchange, rules: Rules, redaction: Redaction, state: RunState) -> None:
        request = exchange.request
        assert request is not None
        exchange.redactions = tuple(_edits(request, exchange.arrived, redaction, exchange.tools_of))
        whole = exchange.whole
        if whole is not None:
            addresses = [self._address(raw) for raw in whole.messages]
            found = await self._messages(whole, addresses, exchange.dialect, rules)
            tools = _released_tools(state) | exchange.tools_of
            edits = list(_edits(whole, found, redaction, tools))
            if edits:
                exchange.whole = exchange.dialect.parse(splice(whole.body, edits))
        if exchange.redactions or exchange.whole is not whole:
            exchange.prompt = None

    async def _guard(self, exchange: Exchange, redaction: Redaction, state: RunState | None) -> Guard | None:
        request = exchange.request
        if request is None or not exchange.dialect.translation:
            return None
        cleared = clearance(exchange, redaction.labels)
        detectors: list[tuple[Detector, Replacement]] = [
            (rule.detect, rule.how)
            for rule in redaction.detectors
            if rule.detect is not None and (rule.rank is None or rule.rank > cleared)
        ]
        rows: list[ClassifiedRow] = []
        if redaction.fields and state is not None and state.marks & Mark.CLASSIFIED:
            rows = await asyncio.to_thread(self._classified, _run_of(exchange))
        hidden = [row for row in rows if row.sensitivity > cleared]
        if not (redaction.args or detectors or hidden):
            return None
        how: dict[str, Replacement] = {rule.id: rule.how for rule in redaction.fields}
        values: dict[bytes, Replacement] = {row.token: how.get(row.rule, "mask") for row in hidden}
        return Guard(
            redaction.key, values, frozenset(row.length for row in hidden), tuple(detectors), redaction.args
        )

    async def _messages(
        self, request: WireRequest, addresses: Sequence[bytes], dialect: Dialect, rules: Rules
    ) -> list[tuple[Scanned, ...]]:
        """What stands in each message, as remembered or looked at now."""
        memory = self._memory(rules)
        found: list[tuple[Scanned, ...]] = []
        for raw, address in zip(request.messages, addresses, strict=True):
            place = dialect.results_at, address
            known = memory.messages.get(place)
            if known is None:
                self.scanned += 1
                try:
                    if len(raw) < _LARGE:
                        known = _scanned(bytes(raw), dialect, memory.redaction)
                    else:
                        known = await asyncio.to_thread(_scanned, bytes(raw), dialect, memory.redaction)
                except TooManyValues as error:
                    if not rules.shadow:
                        raise _too_many(error.result) from error
                    known = _valueless(bytes(raw), dialect, memory.redaction)
                memory.messages.keep(place, known, sum(one.kept for one in known))
            found.append(known)
        return found


def clearance(exchange: Exchange, labels: Sequence[str]) -> int:
    """The rank up to which the call's user may read: the lowest of one whom no credential names."""
    caller = exchange.caller
    if caller is None or not exchange.user_verified or caller.user_clearance not in labels:
        return 0
    return labels.index(caller.user_clearance)


def _scanned(raw: bytes, dialect: Dialect, redaction: Redaction) -> tuple[Scanned, ...]:
    if dialect.results_at is None:
        return ()
    return tuple([scan(result, redaction) for result in dialect.results_at(raw)])


def _valueless(raw: bytes, dialect: Dialect, redaction: Redaction) -> tuple[Scanned, ...]:
    """As `_scanned`, but no value of a classified field is kept: in shadow there may be any number."""
    found = _scanned(raw, dialect, replace(redaction, fields=()))
    return tuple([one._replace(values=((),) * len(redaction.fields)) for one in found])


def _edits(
    request: WireRequest,
    found: Sequence[tuple[Scanned, ...]],
    redaction: Redaction,
    tools: Mapping[tuple[str, str], str | None],
) -> Iterable[Edit]:
    """What redacts the results of a request, at their places in its body."""
    for (start, _), results in zip(request.message_spans, found, strict=False):
        for result in results:
            tool = tools.get((result.id, result.digest), tools.get((tool_call_key(result.id), "")))
            for begin, end, text in result.edits(redaction.results, tool):
                yield start + begin, start + end, text


def _released_tools(state: RunState) -> dict[tuple[str, str], str | None]:
    """Tools by their calls' ids, for results that stand in what a provider or the record kept."""
    calls = [call for call in state.history if call.decision == "allow"]
    return {(call.tool_call_id, ""): call.tool for call in calls}


def _run_of(exchange: Exchange) -> RunKey:
    assert exchange.caller is not None
    return RunKey(exchange.caller.agent.id, exchange.run_id)


def _too_many(result: str) -> ProxyError:
    return ProxyError(
        Kind.POLICY_DENIED,
        f"The result of tool call {result[:80]!r} holds too many values of classified fields. "
        "Send less of it.",
        retryable=False,
    )
