"""OpenRouter's `reasoning_details`: typed pieces of reasoning with what seals them, read and written.

A part that Anthropic redacted comes as `reasoning.encrypted` of Anthropic's format.
"""

from __future__ import annotations

import re

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.openai_chat import schema

OPAQUE = (ReasoningKind.ENCRYPTED, ReasoningKind.REDACTED)

_NO_DEFAULT = -1


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One entry as it is written. What is empty is left out."""

    type: str
    text: str = ""
    summary: str = ""
    data: str = ""
    signature: str = ""
    id: str = ""
    format: str = ""
    index: int = _NO_DEFAULT


def pieces(detail: schema.Detail) -> list[ReasoningPart]:
    """What one entry says: words with their signature, opaque data. Nothing where it says nothing.

    OpenAI's SDK joins every text of a streamed entry's deltas, so `id` and `format` come back several times
    over.
    """
    id_, format_ = _once(detail.id or "", _ID), _once(detail.format or "", _FORMAT)
    signature = detail.signature or ""
    found: list[ReasoningPart] = []
    if detail.text or (signature and not detail.summary):
        found.append(_part(ReasoningKind.RAW, detail.text or "", signature, id_, format_))
        signature = ""
    if detail.summary:
        found.append(_part(ReasoningKind.SUMMARY, detail.summary, signature, id_, format_))
    if detail.data:
        redacted = format_ == ANTHROPIC_FORMAT
        kind = ReasoningKind.REDACTED if redacted else ReasoningKind.ENCRYPTED
        found.append(_part(kind, detail.data, "", id_, format_))
    return found


def entry(part: ReasoningPart, index: int) -> Entry:
    """A piece of reasoning, or a whole part of it, as an entry. `index` tells the parts apart."""
    written = Entry(
        type="reasoning.text", signature=part.signature, id=part.id, format=part.format, index=index
    )
    if part.kind in OPAQUE:
        written.type = "reasoning.encrypted"
        written.data = part.text
    elif part.kind is ReasoningKind.SUMMARY and part.format != ANTHROPIC_FORMAT:
        written.type = "reasoning.summary"
        written.summary = part.text
    else:  # Anthropic signs its summaries too, which only the type text has room for
        written.text = part.text
    return written


def sealed(part: ReasoningPart) -> bool:
    """Whether the part's vendor wants it back as it gave it."""
    return bool(part.signature or part.id) or part.kind in OPAQUE


_ID = re.compile(r"[a-z]+_.{6,}", re.DOTALL)
_FORMAT = re.compile(r"[a-z-]+-v\d+|unknown")


def _once(text: str, like: re.Pattern[str]) -> str:
    """The text that this one repeats from end to end, if it is `like` a vendor's; else the text itself."""
    unit = text[: (text + text).find(text, 1)]
    return unit if like.fullmatch(unit) else text


def _part(kind: ReasoningKind, text: str, signature: str, id_: str, format_: str) -> ReasoningPart:
    return ReasoningPart(kind=kind, text=text, signature=signature, id=id_, format=format_)
