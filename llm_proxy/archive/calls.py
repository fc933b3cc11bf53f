"""Calls as a reader sees them, put together from their evidence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import structs
from sqlalchemy import Connection

from llm_proxy.archive.content import addresses, as_sent, rebuild
from llm_proxy.archive.pieces import fold_pieces, fold_rounds
from llm_proxy.chat.reply import Reply
from llm_proxy.journal import NOTHING_RELEASED
from llm_proxy.records import approval_bodies, bodies
from llm_proxy.records.arguments import addresses_of, with_arguments
from llm_proxy.records.blobs import fetch
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.folding import unfolded
from llm_proxy.records.prepared import select_in
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import CallView, CostLabel, Decision, Piece, ProviderUse, Status
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.spans import splice

_COLUMNS = "kind, at_us, call_id, run_id, agent_id, body, writer, seq"


@dataclass(slots=True)
class _Evidence:
    """The records of one call, as far as they exist."""

    call_id: str
    run_id: str = ""
    agent_id: str = ""
    at_us: int = 0
    opened: bodies.Opened | None = None
    closed: bodies.Closed | None = None
    verdicts: list[bodies.Verdicts] = field(default_factory=list[bodies.Verdicts])
    asked: list[str] = field(default_factory=list[str])
    """Addresses of the arguments that people were asked about."""
    blocks: set[bytes] = field(default_factory=set[bytes])
    """Addresses of blocks of its messages' addresses."""
    provider_tools: list[ProviderUse] = field(default_factory=list[ProviderUse])

    @property
    def run(self) -> RunKey:
        return RunKey(self.agent_id, self.run_id)


def call_views(connection: Connection, ids: Iterable[str], *, content: bool = True) -> list[CallView]:
    """Those of `ids` that are recorded, in the order given; without `content`, no body and no reply."""
    wanted = list(dict.fromkeys(ids))
    found = _evidence(connection, wanted)
    if content:
        _unfold(connection, found.values())
    needed = {id_: _needed([each]) if content else set[bytes]() for id_, each in found.items()}
    blobs = fetch(connection, set[bytes]().union(*needed.values()))
    return [
        _view(found[id_], blobs, content=content, kept=needed[id_] <= blobs.keys())
        for id_ in wanted
        if id_ in found
    ]


def each_view(connection: Connection, ids: Sequence[str], at_once: int = 20) -> Iterator[CallView]:
    """The same, one by one: of `at_once` calls at most the content is in memory together."""
    for start in range(0, len(ids), at_once):
        yield from call_views(connection, ids[start : start + at_once])


def addresses_of_calls(connection: Connection, ids: list[str]) -> set[bytes]:
    """All the content that the calls' records point at."""
    found = _read(connection, ids)
    _unfold(connection, found.values())
    return _needed(found.values())


class NewOfCall(NamedTuple):
    """A call without those of its messages that are known already."""

    view: CallView
    ids: frozenset[bytes]
    """Addresses that needn't be read again: what the view holds, and what is too large for any."""


def new_of_calls(
    connection: Connection, ids: list[str], most: int, known: Callable[[RunKey, int], Collection[bytes]]
) -> Iterator[NewOfCall]:
    """What each call that is recorded brought, as received.

    No more than `most` bytes of content, unpacked, are in memory at once: of a call that brought more there
    are the newest messages that fit beside the reply, or the reply alone.
    """
    found = _evidence(connection, ids)
    folded = {id_: evidence.opened for id_, evidence in found.items()}
    whose = {id_: known(evidence.run, evidence.at_us) for id_, evidence in found.items()}
    for id_, evidence in found.items():
        if evidence.closed is not None:
            evidence.closed = structs.replace(evidence.closed, sent=None)
        _unfold(connection, [evidence], whose[id_])
    needed = {id_: _needed([evidence]) for id_, evidence in found.items()}
    sizes = _sizes(connection, set[bytes]().union(*needed.values()))
    together = sum(sizes.values()) <= most
    blobs = fetch(connection, sizes) if together else {}
    for id_, evidence in found.items():
        wanted = needed[id_]
        if not together:
            wanted = _fitted(connection, evidence, folded[id_], whose[id_], sizes, most)
            blobs = fetch(connection, wanted)
        view = _view(evidence, blobs, content=True, kept=wanted <= blobs.keys())
        yield NewOfCall(view, _done_with(evidence, wanted, needed[id_], sizes, most))


def _fitted(
    connection: Connection,
    evidence: _Evidence,
    folded: bodies.Opened | None,
    known: Collection[bytes],
    sizes: Mapping[bytes, int],
    most: int,
) -> set[bytes]:
    """What is needed of the call once what doesn't fit is left out: old messages, the request, all."""

    def size(ids: set[bytes]) -> int:
        return sum(sizes.get(each, 0) for each in ids)

    wanted = _needed([evidence])
    if left_out := _too_much(evidence, wanted, sizes, most):
        evidence.opened = folded
        _unfold(connection, [evidence], {*known, *left_out})
        wanted = _needed([evidence])
    if size(wanted) > most and evidence.opened is not None:
        evidence.opened = structs.replace(evidence.opened, content=None)
        wanted = _needed([evidence])
    return wanted if size(wanted) <= most else set[bytes]()


def _done_with(
    evidence: _Evidence, wanted: set[bytes], needed: set[bytes], sizes: Mapping[bytes, int], most: int
) -> frozenset[bytes]:
    """What was read of a call, and what never fits. A block of messages, only where none was left out."""
    if wanted == needed:
        return frozenset(needed)
    return frozenset((wanted - evidence.blocks) | {id_ for id_ in needed if sizes.get(id_, 0) > most})


def _too_much(evidence: _Evidence, needed: set[bytes], sizes: Mapping[bytes, int], most: int) -> set[bytes]:
    """Messages, the oldest first, without which the call's content is within `most` bytes."""
    content = evidence.opened.content if evidence.opened is not None else None
    messages = [bytes.fromhex(id_) for _, id_ in content.cuts] if content is not None else []
    room = most - sum(sizes.get(id_, 0) for id_ in needed.difference(messages))
    left_out: set[bytes] = set()
    for id_ in reversed(messages):
        size = sizes.get(id_, 0)
        if size > room:
            left_out.add(id_)
        else:
            room -= size
    return left_out


def _sizes(connection: Connection, ids: Iterable[bytes]) -> dict[bytes, int]:
    """Bytes of content, unpacked, by address; it isn't read."""
    wanted, found = list(ids), dict[bytes, int]()
    for start in range(0, len(wanted), 500):
        rows = select_in(connection, "id, size", "blobs", "id", wanted[start : start + 500])
        found.update((bytes(id_), size) for id_, size in rows)
    return found


def call_view(connection: Connection, id_: str) -> CallView | None:
    return next(iter(call_views(connection, [id_])), None)


def _evidence(connection: Connection, ids: list[str]) -> dict[str, _Evidence]:
    found = _read(connection, ids)
    return {id_: evidence for id_, evidence in found.items() if evidence.opened is not None}


def _read(connection: Connection, ids: list[str]) -> dict[str, _Evidence]:
    found: dict[str, _Evidence] = {}
    for start in range(0, len(ids), 500):
        rows = select_in(connection, _COLUMNS, "records", "call_id", ids[start : start + 500])
        rows.sort(key=lambda row: (row[1], row[6], row[7]))
        for kind, at_us, call_id, run_id, agent_id, body, _, _ in rows:
            evidence = found.setdefault(call_id, _Evidence(call_id))
            evidence.run_id = evidence.run_id or run_id or ""
            evidence.agent_id = evidence.agent_id or agent_id or ""
            _add(evidence, kind, at_us, bytes(body))
    return found


def _unfold(
    connection: Connection, found: Iterable[_Evidence], known: Container[bytes] = frozenset()
) -> None:
    """Unfolds requests, as far as their blocks are kept, without `known` messages.

    Blocks that calls share are read once.
    """
    there: dict[bytes, bytes] = {}

    def blocks(ids: set[bytes]) -> dict[bytes, bytes]:
        there.update(fetch(connection, ids - there.keys()))
        return there

    for each in found:
        opened, closed = each.opened, each.closed
        if opened is not None and opened.content is not None and opened.content.fold:
            content = unfolded(opened.content, blocks, each.blocks, known) or opened.content
            each.opened = structs.replace(opened, content=content)
        if closed is not None and closed.sent is not None and closed.sent.fold:
            sent = unfolded(closed.sent, blocks, each.blocks) or closed.sent
            each.closed = structs.replace(closed, sent=sent)


def _contents(evidence: _Evidence) -> list[bodies.Content]:
    opened, closed = evidence.opened, evidence.closed
    contents = [opened.content if opened else None, closed.sent if closed else None]
    return [content for content in contents if content is not None]


def _add(evidence: _Evidence, kind: str, at_us: int, body: bytes) -> None:
    match kind:
        case RecordKind.CALL_OPENED:
            evidence.opened, evidence.at_us = bodies.read_opened(body), at_us
        case RecordKind.CALL_CLOSED:
            evidence.closed = bodies.read_closed(body)
        case RecordKind.CALL_REFUSED:
            both = bodies.read_refused(body)
            evidence.opened, evidence.closed, evidence.at_us = both.opened, both.closed, at_us
        case RecordKind.VERDICTS:
            evidence.verdicts.append(bodies.read_verdicts(body))
        case RecordKind.APPROVAL_REQUESTED:
            evidence.asked.append(approval_bodies.read_requested(body).arguments_at)
        case RecordKind.PROVIDER_TOOLS:
            evidence.provider_tools += bodies.read_provider_tools(body).uses
        case _:
            return


def _needed(found: Iterable[_Evidence]) -> set[bytes]:
    needed: set[bytes] = set()
    for evidence in found:
        needed |= evidence.blocks | {bytes.fromhex(hex_) for hex_ in evidence.asked if hex_}
        for verdicts in evidence.verdicts:
            needed |= addresses_of(verdicts)
        if evidence.opened is not None:
            needed |= addresses(evidence.opened.content)
        if evidence.closed is not None:
            needed |= addresses(evidence.closed.sent)
            pieces = (piece.emitted for piece in (*evidence.closed.pieces, *evidence.closed.rounds))
            hexes = (evidence.closed.emitted, evidence.closed.released, evidence.closed.edited, *pieces)
            needed |= {bytes.fromhex(hex_) for hex_ in hexes if hex_ and hex_ != NOTHING_RELEASED}
    return needed


def _view(evidence: _Evidence, blobs: dict[bytes, bytes], *, content: bool, kept: bool) -> CallView:
    opened, closed = evidence.opened, evidence.closed or bodies.Closed(status=Status.OPEN)
    assert opened is not None
    body = rebuild(opened.content, blobs) if content else None
    emitted = blobs.get(bytes.fromhex(closed.emitted)) if closed.emitted else None
    pieces, rounds = (_pieces(of, blobs) if content else () for of in (closed.pieces, closed.rounds))
    last = Piece(dialect=closed.upstream or opened.dialect, emitted=emitted, chars=0)
    return CallView(
        id=evidence.call_id,
        run_id=evidence.run_id,
        agent_id=evidence.agent_id,
        started_us=evidence.at_us,
        status=Status(closed.status),
        parent_run_id=opened.parent_run_id,
        run_inferred=opened.run_inferred,
        team=opened.team,
        role=opened.role,
        user_id=opened.user_id,
        user_verified=opened.user_verified,
        actors=opened.actors,
        key_id=opened.key_id,
        tags=opened.tags,
        traceparent=opened.traceparent,
        dialect=opened.dialect,
        upstream_dialect=closed.upstream,
        dropped=closed.dropped,
        operation=DIALECTS[opened.dialect].operation,
        stream=opened.stream,
        model=opened.model,
        served_model=closed.served_model,
        target=closed.target,
        provider=closed.provider,
        server_address=closed.server,
        attempts=closed.attempts,
        first_event_s=closed.first_event_s,
        total_s=closed.total_s if evidence.closed else None,
        overhead_ms=closed.overhead_ms,
        finish_reasons=closed.finish_reasons,
        usage=closed.usage,
        cost_micro_usd=closed.cost_micro_usd,
        cost_label=CostLabel(closed.cost_label) if closed.cost_label else None,
        price=closed.price,
        tier=closed.tier,
        problem=closed.problem,
        decisions=_decisions(evidence, blobs, content=content),
        results=opened.results,
        withheld=opened.withheld,
        provider_tools=tuple(evidence.provider_tools),
        policy=opened.policy,
        held=opened.held,
        topped_up=closed.topped_up,
        request=body,
        sent=(rebuild(closed.sent, blobs) if content else None) or as_sent(body, _edits(closed, blobs)),
        emitted=emitted,
        pieces=pieces,
        rounds=rounds,
        released=_released(closed, emitted, blobs) if content else None,
        masked=_masked(evidence),
        kept=kept,
        reply=_reply(pieces, rounds, last, stream=opened.stream),
    )


def _reply(
    pieces: tuple[Piece, ...], rounds: tuple[Piece, ...], last: Piece, *, stream: bool
) -> Reply | None:
    """What was said, over all rounds; None where nothing came, or it isn't kept."""
    if last.emitted is None and not (pieces or rounds):
        return None
    reply = fold_pieces(pieces, last, stream=stream)
    return fold_rounds(rounds, reply, stream=stream) if rounds else reply


def _masked(evidence: _Evidence) -> bool:
    in_reply = evidence.closed is not None and evidence.closed.masked
    return in_reply or any(content.masked for content in _contents(evidence)) or _masked_arguments(evidence)


def _masked_arguments(evidence: _Evidence) -> bool:
    return any(decision.masked for verdicts in evidence.verdicts for decision in verdicts.decisions)


def _decisions(evidence: _Evidence, blobs: dict[bytes, bytes], *, content: bool) -> tuple[Decision, ...]:
    told = [with_arguments(each, blobs) if content else each.decisions for each in evidence.verdicts]
    return tuple([decision for decisions in told for decision in decisions])


def _edits(closed: bodies.Closed, blobs: dict[bytes, bytes]) -> tuple[bodies.Edit, ...]:
    kept = blobs.get(bytes.fromhex(closed.edited)) if closed.edited else None
    return closed.edits if kept is None else bodies.read_edits(kept)


def _pieces(pieces: Iterable[bodies.Piece], blobs: dict[bytes, bytes]) -> tuple[Piece, ...]:
    return tuple([_piece(piece, blobs) for piece in pieces])


def _piece(piece: bodies.Piece, blobs: dict[bytes, bytes]) -> Piece:
    emitted = blobs.get(bytes.fromhex(piece.emitted))
    return Piece(dialect=piece.dialect, emitted=emitted, chars=piece.chars)


def _released(closed: bodies.Closed, emitted: bytes | None, blobs: dict[bytes, bytes]) -> bytes | None:
    if closed.released == NOTHING_RELEASED:
        return b""
    if closed.released:
        return blobs.get(bytes.fromhex(closed.released))
    if emitted is None or not closed.left_out:
        return None
    return splice(emitted, [(start, end, b"") for start, end in closed.left_out])
