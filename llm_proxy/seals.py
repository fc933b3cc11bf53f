"""Which provider sealed which reasoning, so that a seal is never sent to a provider that can't open it.

A signature or encrypted reasoning is worth nothing elsewhere: another provider answers it with a 400. What is
remembered is a hash of each seal and who gave it. A seal that isn't known (a restart, another worker) goes on
as it is, and where the provider can't open it, the request goes again without any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from msgspec import structs

from llm_proxy.chat.prompt import Message, Part, Prompt, ThoughtPart
from llm_proxy.chat.reply import OPAQUE
from llm_proxy.wire.dialect import Dialect, Signed
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.seal import MARK
from llm_proxy.wire.spans import Edit, Span

_REMEMBERED = 50_000
_CARRIED = MARK.encode()
_MARKS = (b'"signature"', b'"encrypted_content"', b'"data"')


_ANYBODY = ""
"""Stands for whoever sealed a part that is not to be told to anyone."""


def refused(failure_body: bytes) -> bool:
    """Whether an upstream's 400 is about a seal that it can't open."""
    said = failure_body.lower()
    return (
        b"encrypted_content" in said
        or b"thought_signature" in said
        or (b"signature" in said and (b"thinking" in said or b"reasoning" in said))
    )


class Seals:
    """The seals that passed through this process, the newest of them. Used from the event loop only."""

    def __init__(self) -> None:
        self._issuers: OrderedDict[bytes, str] = OrderedDict()
        self._known: set[str] = set()

    def remember(self, seals: Iterable[str], issuer: str) -> None:
        """`issuer` gave these seals in a reply."""
        for seal in seals:
            self._issuers[_digest(seal)] = issuer
            self._known.add(issuer)
            if len(self._issuers) > _REMEMBERED:
                self._issuers.popitem(last=False)

    def foreign(
        self, dialect: Dialect, request: WireRequest, issuer: str, *, every: bool = False
    ) -> list[Edit]:
        """The edits that take out of `request` what other providers than `issuer` sealed, or `every` seal."""
        suspect = every or _CARRIED in request.body or bool(self._known - {issuer})
        if not suspect or not any(mark in request.body for mark in (*_MARKS, _CARRIED)):
            return []
        edits: list[Edit] = []
        whole: set[int] = set()
        for n, (raw, (start, end)) in enumerate(zip(request.messages, request.message_spans, strict=True)):
            for signed in dialect.signed(raw) if any(mark in raw for mark in _MARKS) else ():
                if not (every or signed.carried or self._is_foreign(signed, issuer)):
                    continue
                if signed.span == (0, end - start):
                    whole.add(n)
                else:
                    edits.append((start + signed.span[0], start + signed.span[1], b""))
        return list(dict.fromkeys(edits)) + without_items(request.message_spans, whole)

    def told_to(self, prompt: Prompt, issuer: str, *, every: bool = False) -> tuple[Prompt, bool]:
        """The prompt with what `issuer` sealed marked as its own and without what others did; if any did.

        Words that others signed stay, without what proves them. With `every`, no seal is told.
        """
        if not self._known and not every:
            return prompt, False
        foreign = False
        messages: list[Message] = []
        for message in prompt.messages:
            givers = [_ANYBODY if every and _sealed(part) else self._giver(part) for part in message.parts]
            foreign = foreign or any(by not in (None, issuer) for by in givers)
            told = [_told(part, by, issuer) for part, by in zip(message.parts, givers, strict=True)]
            parts = tuple([part for part in told if part])
            if parts or not message.parts:
                messages.append(structs.replace(message, parts=parts))
        return structs.replace(prompt, messages=tuple(messages)), foreign

    def _giver(self, part: Part) -> str | None:
        """Who sealed it, where it's sealed and that's known."""
        if not isinstance(part, ThoughtPart):
            return None
        thought = part.thought
        return self._issuers.get(_digest(thought.text if thought.kind in OPAQUE else thought.signature))

    def _is_foreign(self, signed: Signed, issuer: str) -> bool:
        return self._issuers.get(_digest(signed.seal), issuer) != issuer


def without_items(spans: Sequence[Span], gone: set[int]) -> list[Edit]:
    """Edits that take whole items out of an array, each with one comma."""
    kept = [n for n in range(len(spans)) if n not in gone]
    if not gone:
        return []
    if not kept:
        return [(spans[0][0], spans[-1][1], b"")]
    last = kept[-1]
    edits: list[Edit] = [(spans[n][0], spans[n + 1][0], b"") for n in sorted(gone) if n < last]
    if last + 1 < len(spans):
        edits.append((spans[last][1], spans[-1][1], b""))
    return edits


def _sealed(part: Part) -> bool:
    return isinstance(part, ThoughtPart) and bool(part.thought.signature or part.thought.kind in OPAQUE)


def _told(part: Part, giver: str | None, issuer: str) -> Part | None:
    if giver is None or not isinstance(part, ThoughtPart):
        return part
    if giver == issuer:
        return structs.replace(part, own=True)
    thought = part.thought
    if thought.kind in OPAQUE or not thought.text:
        return None
    return ThoughtPart(thought=structs.replace(thought, signature="", id=""))


def _digest(seal: str) -> bytes:
    return blake2b(seal.encode(), digest_size=16).digest()
