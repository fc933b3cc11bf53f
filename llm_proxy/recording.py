"""Masks what is recorded of calls, before it is: what is new of a request once, and every reply.

On the event loop stands one quick look at what is new. Where that finds something, or where there is much to
look at, the work is done in a thread.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import structlog

from llm_proxy.chat.events import CallDelta, Event, Reasoning, Refusal, Text
from llm_proxy.chat.reply import OPAQUE, Assembly, ToolCall
from llm_proxy.config.choices import Content as ContentMode
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.intake import cut
from llm_proxy.judging import Rules
from llm_proxy.policy.schema import Mode
from llm_proxy.recorded import Apart, Ending, Taken, ToolOf, apart_of, holds, kept, masked_replies, settled
from llm_proxy.records.arguments import NO_ARGUMENTS, KeptArguments, pack
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.folding import folded
from llm_proxy.redacting.recorded import RecordMask, record_mask
from llm_proxy.redacting.recorded_replies import WITHHELD
from llm_proxy.redacting.rules import Redaction
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.spans import splice

log = structlog.get_logger("llm_proxy.recording")

LARGE = 256 << 10
"""Bytes that are looked at in one go on the event loop."""


class Recorder:
    """One per worker; used from the event loop. `redaction` compiles a policy's rules."""

    def __init__(
        self,
        addresser: Addresser,
        secret: bytes,
        redaction: Callable[[Rules], Redaction],
        *,
        mask_secrets: bool,
        content: ContentMode = ContentMode.FULL,
    ) -> None:
        self._addresser = addresser
        self._secret = secret
        self._redaction = redaction
        self._mask_secrets = mask_secrets
        self._content = content
        self._masks: dict[str, RecordMask | None] = {}

    def mask(self, rules: Rules | None) -> RecordMask | None:
        """What is masked under `rules`, of which those in shadow mask nothing."""
        if self._content is ContentMode.DIGEST:
            return None
        if rules is not None and rules.mode is Mode.SHADOW:
            rules = None
        key = rules.sha256 if rules is not None else ""
        if key not in self._masks:
            if len(self._masks) > _POLICIES:
                self._masks.clear()
            redaction = self._redaction(rules) if rules is not None else None
            everything = self._content is ContentMode.REDACTED
            self._masks[key] = record_mask(
                redaction, self._secret, mask_secrets=self._mask_secrets, everything=everything
            )
        return self._masks[key]

    async def request(self, exchange: Exchange, rules: Rules | None) -> None:
        """Settles what is kept of the request, as it was taken apart."""
        mask = exchange.record_mask = self.mask(rules)
        exchange.keeps_content = self._content is not ContentMode.DIGEST
        intake = exchange.intake
        if intake is None:
            if not exchange.body:
                return
            drafts: list[BlobDraft] = []
            whole = self._addresser.draft(exchange.body, drafts)
            masked = self._addresser.is_masked(whole)
            apart = Apart(exchange.body, (), (), tuple(drafts), whole, masked)
        else:
            apart = apart_of(exchange.body, intake)
        results = intake is not None and bool(intake.results)
        if apart.size > LARGE or holds(apart, mask, results=results):
            stored = await asyncio.to_thread(kept, apart, exchange.dialect, mask)
        else:
            stored = kept(apart, exchange.dialect, None)
        content, blobs, pending = stored
        if exchange.keeps_content:
            content = folded(content, apart.messages, self._addresser, blobs)
        exchange.recorded = Taken(intake, content, tuple(blobs), tuple(pending))

    def closing(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """Settles what is kept at the call's end, if need be later on, by what is returned then."""
        mask = exchange.record_mask
        sent, replies = sent_apart(exchange, self._addresser), _Replies(exchange)
        if mask is None:
            exchange.ending = _ended(exchange, sent, replies, None)
            return None
        size = replies.size + (sent.size if sent is not None else 0)
        if size <= LARGE and not (replies.hold(mask) or (sent and holds(sent, mask, results=True))):
            exchange.ending = _ended(exchange, sent, replies, None)
            return None
        return self._close(exchange, sent, replies, mask)

    async def _close(
        self, exchange: Exchange, sent: Apart | None, replies: _Replies, mask: RecordMask
    ) -> None:
        exchange.ending = await asyncio.to_thread(_looked_into, exchange, sent, replies, mask)


_POLICIES = 4
_ESCAPED = re.compile(rb"\\[u/]")
"""Letters that stand otherwise in JSON than they are said. Values have no quotes, and a first line tells."""
_MUCH, _SEAM = 1 << 20, 1 << 16


class _Replies:
    """The bytes of a call's replies, and what it takes to tell that nothing in them is to be masked."""

    def __init__(self, exchange: Exchange) -> None:
        self.emitted = exchange.emitted.getvalue()
        self._exchange = exchange
        self.pieces = [p.emitted.getvalue() for p in exchange.resumed.pieces] if exchange.resumed else []
        self.rounds = [r.emitted.getvalue() for r in exchange.rounds]
        self._assembly, self._dialect = exchange.assembly, exchange.upstream
        self._blind = exchange.dialect.raw
        other = sum(map(len, exchange.released or ()))
        self.size = len(self.emitted) + other + sum(map(len, [*self.pieces, *self.rounds]))

    @property
    def released(self) -> bytes | None:
        """What the agent received, where it differs: made anew each time, since it may be large."""
        return released_bytes(self._exchange, self.emitted)

    def hold(self, mask: RecordMask) -> bool:
        """Whether there may be something. What came in several replies, or in no known form, is read all."""
        if self.pieces or self.rounds or (self._blind and self.emitted.find(b"data:") >= 0):
            return True
        if mask.holds(self.emitted) or (self._exchange.released and mask.holds(self.released or b"")):
            return True
        return any(mask.holds(text.encode("utf-8", "replace")) for text in self._texts())

    def _texts(self) -> Iterable[str]:
        """What was said, each text put together: in pieces where there is much of it.

        The texts of a body stand whole in its bytes, where they were looked at already.
        """
        is_body = self.emitted[:64].lstrip()[:1] in (b"{", b"[")
        if self.size <= LARGE:
            return () if is_body and not _ESCAPED.search(self.emitted) else texts_of(self._assembly)
        if self._dialect is None or is_body:
            return ()
        return joined(events_of(self._dialect, self.emitted, streamed=True))

    def masked(self, mask: RecordMask) -> tuple[bytes | None, bytes | None, tuple[bytes | None, ...]]:
        every = [self.emitted, self.released or b"", *self.pieces, *self.rounds]
        emitted, released, *others = masked_replies(every, mask)
        return emitted, released, tuple(others)


def joined(events: Iterable[Event]) -> Iterator[str]:
    """The texts that events come to, in pieces that overlap by more than any value is long."""
    texts: dict[tuple[object, ...], list[str]] = {}
    sizes: dict[tuple[object, ...], int] = {}
    for event in events:
        match event:
            case Text(choice, text) | Refusal(choice, text):
                key = (choice, type(event))
            case Reasoning(choice, text, kind, part) if kind not in OPAQUE:
                key = (choice, kind, part)
            case CallDelta(choice, index, _, _, text):
                key = (choice, index)
            case _:
                continue
        texts.setdefault(key, []).append(text)
        sizes[key] = sizes.get(key, 0) + len(text)
        if sizes[key] > _MUCH:
            piece = "".join(texts[key])
            yield piece
            texts[key] = [piece[-_SEAM:]]
            sizes[key] = len(texts[key][0])
    yield from ("".join(pieces) for pieces in texts.values())


def texts_of(assembly: Assembly) -> list[str]:
    """All that a reply says, each text put together."""
    return [
        text
        for choice in assembly.reply().choices
        for text in (
            *(choice.text, choice.refusal),
            *[part.text for part in choice.reasoning if part.kind not in OPAQUE],
            *[call.arguments for call in choice.calls],
        )
        if text
    ]


def _looked_into(exchange: Exchange, sent: Apart | None, replies: _Replies, mask: RecordMask) -> Ending:
    """As `_ended`, where a look finds something to mask; else nothing is taken apart."""
    found = replies.hold(mask) or (sent is not None and holds(sent, mask, results=True))
    return _ended(exchange, sent, replies, mask if found else None)


def _ended(exchange: Exchange, sent: Apart | None, replies: _Replies, mask: RecordMask | None) -> Ending:
    """Everything that is kept at the end. What can't be masked is withheld."""
    content, blobs = None, ()
    messages = sent.messages if sent is not None else ()
    if sent is not None:
        assert exchange.upstream is not None
        stored = kept(sent, exchange.upstream, mask)
        content, blobs = settled(*stored, mask, _by_id(exchange))
    if mask is None:
        nothing = (None,)
        others = nothing * len(replies.pieces), nothing * len(replies.rounds)
        return Ending(content, blobs, None, None, *others, messages)
    try:
        emitted, released, others = replies.masked(mask)
    except Exception as error:  # noqa: BLE001  whatever it is: nothing may be kept unmasked for it
        log.error(
            "a reply could not be masked, and is not kept", call_id=exchange.id, error=type(error).__name__
        )
        emitted = released = WITHHELD
        others = (WITHHELD,) * (len(replies.pieces) + len(replies.rounds))
    middle = len(replies.pieces)
    if emitted is not None and exchange.left_out and exchange.released is None:
        released = released if released is not None else replies.released
    return Ending(content, blobs, emitted, released, others[:middle], others[middle:], messages)


def released_bytes(exchange: Exchange, emitted: bytes) -> bytes | None:
    """What the agent received, where it differs from what was emitted."""
    if exchange.released is not None:
        return b"".join(exchange.released)
    if exchange.left_out:
        return splice(emitted, [(start, end, b"") for start, end in exchange.left_out])
    return None


def sent_apart(exchange: Exchange, addresser: Addresser) -> Apart | None:
    """The body as sent, taken apart: written anew, or edited where the request is masked.

    None where edits tell it: of a masked request their places say nothing.
    """
    body, dialect = exchange.sent, exchange.upstream
    if dialect is None:
        return None
    if body is None:
        if not (exchange.edits and exchange.request_masked):
            return None
        body = splice(exchange.body, exchange.edits)
    drafts: list[BlobDraft] = []
    try:
        request = dialect.parse(body)
    except ProxyError:
        whole = addresser.draft(body, drafts)
        return Apart(body, (), (), tuple(drafts), whole, addresser.is_masked(whole))
    taken = cut(request, dialect, addresser, drafts)
    holes = tuple(taken.holes())
    masked = any(addresser.is_masked(hole.id) for hole in holes)
    return Apart(body, holes, tuple([hole.id for hole in taken.messages]), tuple(drafts), None, masked)


def ending_of(exchange: Exchange, addresser: Addresser) -> Ending:
    """What is kept at a call's end, settled at once."""
    return _ended(exchange, sent_apart(exchange, addresser), _Replies(exchange), exchange.record_mask)


def taken_of(exchange: Exchange, addresser: Addresser | None = None) -> Taken:
    """What is kept of a request, as it was settled, or settled at once where it was taken apart anew."""
    known, intake = exchange.recorded, exchange.intake
    if known is not None and known.intake is intake:
        return known
    if intake is None:
        if addresser is None or not exchange.body:
            return Taken(None, None, ())
        drafts: list[BlobDraft] = []
        whole = addresser.draft(exchange.body, drafts)
        apart = Apart(exchange.body, (), (), tuple(drafts), whole)
    else:
        apart = apart_of(exchange.body, intake)
    content, blobs, pending = kept(apart, exchange.dialect, exchange.record_mask)
    return Taken(intake, content, tuple(blobs), tuple(pending))


def tool_of(exchange: Exchange) -> ToolOf:
    """The tools of a request's results, as far as their calls are known."""

    def found(message: int, result: int, id_: str) -> str | None:
        arrived = exchange.arrived[message] if message < len(exchange.arrived) else ()
        if result >= len(arrived) or arrived[result].id != id_:
            return None
        return exchange.tools_of.get((id_, arrived[result].digest))

    return found


def _by_id(exchange: Exchange) -> ToolOf:
    """The same for a body that was written anew: by ids, where they are the caller's."""
    tools = {id_: tool for (id_, _), tool in exchange.tools_of.items()}
    return lambda message, result, id_: tools.get(id_)


async def recorded_arguments(
    mask: RecordMask | None, calls: Sequence[ToolCall], addresser: Addresser, now_us: int
) -> KeptArguments:
    """The arguments of calls as they are kept."""
    if not calls:
        return NO_ARGUMENTS
    if sum([len(call.arguments) for call in calls]) > LARGE:
        packed, kept, masked = await asyncio.to_thread(_arguments, mask, calls)
    else:
        packed, kept, masked = _arguments(mask, calls)
    blobs: list[BlobDraft] = []
    address = addresser.fresh(packed, now_us, blobs, kept)
    return KeptArguments(masked, address.hex(), tuple(blobs))


def _arguments(
    mask: RecordMask | None, calls: Sequence[ToolCall]
) -> tuple[bytes, bytes | None, tuple[bool, ...]]:
    """All of them in one piece, as they came and, where that differs, as they are kept; which are masked."""
    came = [call.arguments for call in calls]
    packed = pack(came)
    if mask is None:
        return packed, None, ()
    kept = [_argument(mask, text) for text in came]
    if not any(text is not None for text in kept):
        return packed, None, ()
    as_kept = [old if new is None else new for old, new in zip(came, kept, strict=True)]
    return packed, pack(as_kept), tuple([text is not None for text in kept])


def _argument(mask: RecordMask, arguments: str) -> str | None:
    data = arguments.encode("utf-8", "replace")
    if not mask.holds(data):
        return None
    strings = mask.content(data)
    read = arguments if strings is None else strings.decode("utf-8", "replace")
    masked = mask.text(read) or read  # numbers, too, and what is no JSON
    return None if masked == arguments else masked
