"""What is kept of one call's content: the request taken apart, and the reply, with what is masked of them.

Addresses are those of content as it came, so that what is sent again is known again; what is stored under one
may be masked. All of this is pure, and safe to run in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from llm_proxy.intake import Hole, Intake
from llm_proxy.records.bodies import Content
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.redacting.recorded import RecordMask
from llm_proxy.redacting.recorded_replies import masked_reply
from llm_proxy.redacting.rules import Hit, hits, merged, replaced
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.results import Slice
from llm_proxy.wire.spans import splice

ToolOf = Callable[[int, int, str], str | None]
"""The tool of a result, by its message, its place in that, and its call's id; None where nobody knows."""


class Pending(NamedTuple):
    """What rules of some tools find in a new message's results. Which apply is known at its admission."""

    draft: int
    message: int
    found: tuple[tuple[int, str, Slice, tuple[Hit, ...]], ...]
    """Each with the result's place in the message, and its call's id."""


class Taken(NamedTuple):
    """A request as it is kept. Of `intake` it was made."""

    intake: Intake | None
    content: Content | None
    blobs: tuple[BlobDraft, ...]
    pending: tuple[Pending, ...] = ()


class Apart(NamedTuple):
    """A body taken apart, and what of it is new."""

    body: bytes
    holes: tuple[Hole, ...]
    messages: tuple[bytes, ...]
    """Addresses."""
    new: tuple[BlobDraft, ...]
    whole: bytes | None = None
    masked: bool = False
    """Something of it is stored already, and masked there."""

    @property
    def size(self) -> int:
        """Bytes that are looked at."""
        if self.whole is not None:
            return sum([len(draft.content) for draft in self.new])
        kept = sum([hole.end - hole.start for hole in self.holes])
        return len(self.body) - kept + sum([len(draft.content) for draft in self.new])


def apart_of(body: bytes, intake: Intake) -> Apart:
    return Apart(body, intake.holes, intake.messages, intake.new, intake.whole, intake.masked)


def envelope_of(apart: Apart) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The body with its holes cut out, and where each was."""
    pieces: list[bytes] = []
    cuts: list[tuple[int, str]] = []
    size = end = 0
    for hole in apart.holes:
        pieces.append(apart.body[end : hole.start])
        size += hole.start - end
        cuts.append((size, hole.id.hex()))
        end = hole.end
    pieces.append(apart.body[end:])
    return b"".join(pieces).decode(), tuple(cuts)


def holds(apart: Apart, mask: RecordMask | None, *, results: bool) -> bool:
    """Whether something of what is new may have to be masked. `results`: there are tool results in it."""
    if mask is None:
        return False
    if mask.results and results and apart.new:
        return True
    if apart.whole is None and mask.holds(envelope_of(apart)[0].encode()):
        return True
    return any(mask.holds(draft.content) for draft in apart.new)


def kept(
    apart: Apart, dialect: Dialect, mask: RecordMask | None
) -> tuple[Content, list[BlobDraft], list[Pending]]:
    """What is stored of a body."""
    blobs = [masked_draft(draft, mask) for draft in apart.new]
    masked = apart.masked or any(draft.masked for draft in blobs)
    if apart.whole is not None:
        return Content(whole=apart.whole.hex(), masked=masked), blobs, []
    envelope, cuts = envelope_of(apart)
    if mask is not None and mask.holds(envelope.encode()) and (edits := mask.json(envelope)):
        envelope, cuts, masked = *_shifted(envelope, cuts, edits), True
    pending = _pending(apart, blobs, dialect, mask) if mask is not None and mask.results else []
    return Content(envelope=envelope, cuts=cuts, masked=masked), blobs, pending


def settled(
    content: Content,
    blobs: Sequence[BlobDraft],
    pending: Sequence[Pending],
    mask: RecordMask | None,
    tool_of: ToolOf,
) -> tuple[Content, tuple[BlobDraft, ...]]:
    """The same, with what the rules of some tools mask of their results."""
    if mask is None or not pending:
        return content, tuple(blobs)
    out = list(blobs)
    for at, message, found in pending:
        edits = [
            slice_.edit(replaced(slice_.text, chosen))
            for result, id_, slice_, every in found
            if (chosen := _fitting(every, mask, tool_of(message, result, id_)))
        ]
        if edits:
            draft = out[at]
            out[at] = draft._replace(content=splice(draft.content, edits), masked=True)
    masked = content.masked or any(draft.masked for draft in out)
    return structs.replace(content, masked=masked), tuple(out)


def digested(content: Content, body: bytes, holes: Sequence[Hole]) -> Content:
    """What is kept of a body where no content is: sizes, and the salted hashes of its pieces."""
    cuts = tuple([(0, id_) for _, id_ in content.cuts])
    sizes = tuple([hole.end - hole.start for hole in holes])
    return Content(cuts=cuts, whole=content.whole, size=len(body), sizes=sizes)


def masked_draft(draft: BlobDraft, mask: RecordMask | None) -> BlobDraft:
    masked = mask.content(draft.content) if mask is not None else None
    return draft if masked is None else draft._replace(content=masked, masked=True)


def masked_replies(replies: Sequence[bytes], mask: RecordMask) -> tuple[bytes | None, ...]:
    """Each as it is kept; None where that is as it came."""
    return tuple([masked_reply(reply, mask) if reply else None for reply in replies])


def _fitting(found: Sequence[Hit], mask: RecordMask, tool: str | None) -> list[Hit]:
    return merged([hit for hit in found if mask.results[hit.rule].fits(tool)])


def _shifted(
    envelope: str, cuts: tuple[tuple[int, str], ...], edits: Sequence[tuple[int, int, str]]
) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The envelope with edits of its characters made, and its cuts, which are at bytes, moved with them."""
    pieces: list[str] = []
    moved: list[tuple[int, str]] = []
    waiting = list(reversed(cuts))
    at = old = new = 0
    for start, end, text in [*edits, (len(envelope), len(envelope), "")]:
        before = envelope[at:start]
        size = len(before.encode())
        while waiting and waiting[-1][0] <= old + size:
            place, id_ = waiting.pop()
            moved.append((new + place - old, id_))
        pieces += (before, text)
        old += size + len(envelope[start:end].encode())
        new += size + len(text.encode())
        at = end
    return "".join(pieces), tuple(moved)


def _pending(apart: Apart, blobs: Sequence[BlobDraft], dialect: Dialect, mask: RecordMask) -> list[Pending]:
    if dialect.results_at is None:
        return []
    drafts = {draft.id: n for n, draft in enumerate(blobs)}
    out: list[Pending] = []
    for message, id_ in enumerate(apart.messages):
        draft = drafts.pop(id_, None)
        if draft is None:
            continue
        found = tuple(
            [
                (n, result.id, slice_, tuple(every))
                for n, result in enumerate(dialect.results_at(blobs[draft].content))
                for slice_ in result.slices
                if (every := hits(mask.results, slice_.text, mask.key))
            ]
        )
        if found:
            out.append(Pending(draft, message, found))
    return out


class Ending(NamedTuple):
    """What is kept at a call's end. Of each reply what it is masked to, None where it's kept as it came."""

    sent: Content | None = None
    blobs: tuple[BlobDraft, ...] = ()
    emitted: bytes | None = None
    released: bytes | None = None
    pieces: tuple[bytes | None, ...] = ()
    rounds: tuple[bytes | None, ...] = ()
    messages: tuple[bytes, ...] = ()
    """Addresses of the messages as they were sent."""

    @property
    def masked(self) -> bool:
        """Something of the reply is."""
        return any(each is not None for each in (self.emitted, self.released, *self.pieces, *self.rounds))
