"""The content that a call's closing record refers to: its replies, and the request as it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_proxy.exchange import Exchange
from llm_proxy.recorded import Ending, digested
from llm_proxy.recording import ending_of, released_bytes
from llm_proxy.records import bodies
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.folding import folded

NOTHING_RELEASED = "-"
_LITTLE = 128
"""Bytes of an edit that can stand in the record itself: a model's name, a cap."""


class Stored(NamedTuple):
    """By their addresses, as `bodies.Closed` has them."""

    emitted: str = ""
    released: str = ""
    pieces: tuple[bodies.Piece, ...] = ()
    rounds: tuple[bodies.Piece, ...] = ()
    sent: bodies.Content | None = None
    masked: bool = False
    edits: tuple[bodies.Edit, ...] = ()
    edited: str = ""
    size: int = 0


NOTHING = Stored()


def stored(exchange: Exchange, addresser: Addresser, now_us: int, blobs: list[BlobDraft]) -> Stored:
    """Adds drafts of it all to `blobs`, unless no content is kept."""
    told = _stored(exchange, addresser, now_us, blobs)
    if exchange.keeps_content:
        return told
    blobs.clear()
    sent = told.sent and digested(told.sent, exchange.sent or exchange.body, ())
    size = len(exchange.emitted.getvalue())
    return told._replace(sent=sent, edits=(), edited="", size=size)


def _stored(exchange: Exchange, addresser: Addresser, now_us: int, blobs: list[BlobDraft]) -> Stored:
    ending = exchange.ending or ending_of(exchange, addresser)
    blobs += ending.blobs

    def fresh(came: bytes, masked: bytes | None) -> str:
        return addresser.fresh(came, now_us, blobs, masked).hex()

    def pieces(
        came: Sequence[tuple[str, bytes, int]], masked: Sequence[bytes | None]
    ) -> tuple[bodies.Piece, ...]:
        return tuple(
            bodies.Piece(dialect=dialect, emitted=fresh(emitted, as_kept), chars=chars)
            for (dialect, emitted, chars), as_kept in zip(came, masked, strict=True)
        )

    edits = _edits(exchange)
    told = not edits or _tells_nothing(exchange)
    came, resumed = exchange.emitted.getvalue(), exchange.resumed
    before = [(p.dialect, p.emitted.getvalue(), p.chars) for p in resumed.pieces] if resumed else []
    rounds = [(round_.dialect.name, round_.emitted.getvalue(), 0) for round_ in exchange.rounds]
    return Stored(
        emitted=fresh(came, ending.emitted) if came else "",
        released=_released(exchange, addresser, now_us, blobs, ending),
        pieces=pieces(before, ending.pieces),
        rounds=pieces(rounds, ending.rounds),
        sent=_folded(exchange, ending, addresser, blobs),
        masked=ending.masked,
        edits=edits if told else (),
        edited="" if told else fresh(*_masked(bodies.encode(edits), exchange)),
    )


def _folded(
    exchange: Exchange, ending: Ending, addresser: Addresser, blobs: list[BlobDraft]
) -> bodies.Content | None:
    if ending.sent is None or not exchange.keeps_content:
        return ending.sent
    return folded(ending.sent, ending.messages, addresser, blobs)


def _edits(exchange: Exchange) -> tuple[bodies.Edit, ...]:
    # Of a masked request no place is where it was: `sent` has the body as it was sent.
    if exchange.request_masked or not exchange.edits:
        return ()
    return tuple([bodies.Edit(start, end, text.decode()) for start, end, text in exchange.edits])


def _masked(edits: bytes, exchange: Exchange) -> tuple[bytes, bytes | None]:
    mask = exchange.record_mask
    return edits, mask.content(edits) if mask is not None else None


def _tells_nothing(exchange: Exchange) -> bool:
    """Whether the edits are those of names and numbers, and none of what was said."""
    request = exchange.request
    if request is None:
        return False
    said, until = request.spans.get(request.messages_key, (0, 0))
    return all(
        len(text) <= _LITTLE and (end <= said or start >= until) for start, end, text in exchange.edits
    )


def _released(
    exchange: Exchange, addresser: Addresser, now_us: int, blobs: list[BlobDraft], ending: Ending
) -> str:
    """Empty where it's what was emitted, but for slices left out, which have no place in a masked one."""
    if exchange.released is None and (not exchange.left_out or ending.emitted is None):
        return ""
    content = released_bytes(exchange, exchange.emitted.getvalue())
    return addresser.fresh(content, now_us, blobs, ending.released).hex() if content else NOTHING_RELEASED
