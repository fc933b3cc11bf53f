"""Long lists of messages in a record, folded: a history that is resent is told by a few addresses.

Every eight messages of a request make a blob that holds their addresses, every eight of those one that holds
theirs, and so on. The next request of the run has the same messages first, and so the same blobs: its record
grows with the logarithm of the list.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Container, Mapping, Sequence

from msgspec import structs

from llm_proxy.records.blobs import Addresser
from llm_proxy.records.bodies import Content, Fold
from llm_proxy.records.evidence import BlobDraft

WIDTH = 8
DEEPEST = 12
"""Levels that a reader follows; a body can't hold more messages than eight of them do."""

Blobs = Mapping[bytes, bytes]


def folded(
    content: Content, messages: Sequence[bytes], addresser: Addresser, into: list[BlobDraft]
) -> Content:
    """`content` with its messages, whose addresses are `messages`, in blocks; those go `into` the drafts.

    As it is where they are few, or don't stand evenly apart.
    """
    many = len(messages)
    first = _first(content, messages)
    if many < WIDTH or first is None:
        return content
    places = [at for at, _ in content.cuts[first : first + many]]
    start, step = places[0], places[1] - places[0]
    if places != list(range(start, start + many * step, step)):
        return content
    parts: list[tuple[int, str]] = []
    level, ids = 0, list(messages)
    while ids:
        whole = len(ids) - len(ids) % WIDTH
        parts = [(level, _told(id_)) for id_ in ids[whole:]] + parts
        ids = [addresser.draft(b"".join(ids[n : n + WIDTH]), into) for n in range(0, whole, WIDTH)]
        level += 1
    before, behind = content.cuts[:first], content.cuts[first + many :]
    content = structs.replace(content, cuts=(*before, *behind))
    return _closed_up(content, Fold(start, step, tuple(parts)), many)


def _closed_up(content: Content, fold: Fold, many: int) -> Content:
    """Without what stands between the messages, where that is always the same."""
    envelope, start = content.envelope.encode(), fold.start
    end = start + (many - 1) * fold.step
    between = envelope[start : start + fold.step]
    inside = any(start <= at <= end for at, _ in content.cuts)
    same = len(between) == fold.step and envelope[start:end] == between * (many - 1)
    if inside or not same or not between.isascii():
        return structs.replace(content, fold=fold)
    left = (envelope[:start] + envelope[end:]).decode()
    cuts = tuple([(at - (end - start) if at > start else at, id_) for at, id_ in content.cuts])
    fold = structs.replace(fold, between=between.decode())
    return structs.replace(content, envelope=left, cuts=cuts, fold=fold)


def _opened_up(content: Content, fold: Fold, many: int) -> Content:
    """The reverse of it."""
    if not fold.between:
        return content
    envelope, start, wide = content.envelope.encode(), fold.start, (many - 1) * fold.step
    whole = envelope[:start] + fold.between.encode() * (many - 1) + envelope[start:]
    cuts = tuple([(at + wide if at > start else at, id_) for at, id_ in content.cuts])
    return structs.replace(content, envelope=whole.decode(), cuts=cuts)


def _first(content: Content, messages: Sequence[bytes]) -> int | None:
    """Where among the cuts the messages are, which stand together in a body."""
    if not messages:
        return None
    ids = [id_ for _, id_ in content.cuts]
    try:
        first = ids.index(messages[0].hex())
    except ValueError:
        return None
    last = first + len(messages) - 1
    return first if last < len(ids) and ids[last] == messages[-1].hex() else None


def unfolded(
    content: Content,
    fetch: Callable[[set[bytes]], Blobs],
    used: set[bytes],
    known: Container[bytes] = frozenset(),
) -> Content | None:
    """The content with a cut for each message; None where a block is not kept.

    `fetch` is asked once for each level; the addresses of all blocks are added to `used`. Messages that are
    `known`, and blocks of them, are left out, but for the last; none is where what stands between isn't
    always the same.
    """
    fold = content.fold
    if fold is None:
        return content
    ids = parts_of(fold)
    for _ in range(DEEPEST):
        if fold.between:
            ids = [*(part for part in ids[:-1] if part[1] not in known), ids[-1]]
        blocks = {id_ for level, id_ in ids if level}
        if not blocks:
            break
        used |= blocks
        found = fetch(blocks)
        if not blocks <= found.keys():
            return None
        ids = [
            each
            for level, id_ in ids
            for each in (
                [(0, id_)] if not level else [(level - 1, each) for each in inside(found[id_], len(id_))]
            )
        ]
    content = _opened_up(content, fold, len(ids))
    cuts = [(fold.start + n * fold.step, id_.hex()) for n, (_, id_) in enumerate(ids)]
    ordered = tuple(sorted([*content.cuts, *cuts], key=lambda cut: cut[0]))
    return structs.replace(content, cuts=ordered, fold=None)


def parts_of(fold: Fold) -> list[tuple[int, bytes]]:
    """Level and address of each part, in order."""
    return [(level, _read(id_)) for level, id_ in fold.parts]


def inside(block: bytes, wide: int) -> list[bytes]:
    """The addresses that a block holds, of `wide` bytes each."""
    return [block[at : at + wide] for at in range(0, len(block), wide)]


def _told(id_: bytes) -> str:
    return urlsafe_b64encode(id_).rstrip(b"=").decode()


def _read(told: str) -> bytes:
    return urlsafe_b64decode(told + "=" * (-len(told) % 4))
