"""OpenAI Responses, the items of a reply's output, each as its finished JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from llm_proxy.chat.blocks import Block, CallBlock, ReasoningBlock, RefusalBlock, TextBlock
from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.openai_responses.prompt_items import call_signature
from llm_proxy.wire.openai_responses.prompt_tools import Place
from llm_proxy.wire.seal import wrap

COMPLETED = b"completed"
INCOMPLETE = b"incomplete"
IN_PROGRESS = b"in_progress"
WORDS = (ReasoningKind.RAW, ReasoningKind.INLINE_TAG)
"""Kinds that are the reasoning's own words: `content`, where summaries are `summary`."""

_SEALS = (ReasoningKind.ENCRYPTED, ReasoningKind.REDACTED)
_SIGNED = (ReasoningKind.RAW, ReasoningKind.INLINE_TAG, ReasoningKind.SUMMARY)

encode = msgspec.json.Encoder().encode


class _Input(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input: str


_input = msgspec.json.Decoder(_Input).decode


class Ids(msgspec.Struct, frozen=True, gc=False):
    """Ids of a reply and its items, made from the proxy's own id of the call."""

    stem: str
    carries: bool = False
    """The caller asked for encrypted reasoning (`include`): Codex, for one, sends no other words back."""

    @property
    def response(self) -> str:
        return f"resp_{self.stem}"

    def item(self, prefix: str, index: int) -> str:
        return f"{prefix}_{self.stem}_{index}"

    def reasoning(self, vendor: str, format_: str, index: int) -> str:
        """The vendor's own id where it is OpenAI's: what it encrypted is bound to that."""
        return vendor if vendor and format_ == RESPONSES_FORMAT else self.item("rs", index)


class Called(msgspec.Struct, frozen=True):
    """A call in the caller's own words: namespace, kind and input as it declared the tool."""

    id: str
    call_id: str
    name: str
    namespace: str
    custom: bool
    input: str

    def item(self, status: bytes, input_: str | None = None) -> bytes:
        """The item; `input_` in place of the input (nothing has come yet where a stream begins it)."""
        given = self.input if input_ is None else input_
        return b'{"id":%b,"type":"%b","status":"%b","%b":%b,"call_id":%b,"name":%b%b}' % (
            encode(self.id),
            b"custom_tool_call" if self.custom else b"function_call",
            status,
            b"input" if self.custom else b"arguments",
            encode(given),
            encode(self.call_id),
            encode(self.name),
            b',"namespace":' + encode(self.namespace) if self.namespace else b"",
        )


def called(block: CallBlock, places: Mapping[str, Place], ids: Ids, index: int) -> Called:
    """A call as the caller knows its tool. `{"input": "…"}` of a freeform tool becomes that text."""
    place = places.get(block.name) or Place(block.name)
    custom = block.custom or place.custom
    given = block.arguments
    if custom and not block.custom:
        given = _plain(given)
    return Called(
        id=ids.item("ctc" if custom else "fc", index),
        call_id=block.id or ids.item("call", index),
        name=place.name,
        namespace=place.namespace,
        custom=custom,
        input=given or ("" if custom else "{}"),
    )


def text_part(text: str) -> bytes:
    return b'{"type":"output_text","annotations":[],"logprobs":[],"text":' + encode(text) + b"}"


def refusal_part(text: str) -> bytes:
    return b'{"type":"refusal","refusal":' + encode(text) + b"}"


def message_item(id_: str, status: bytes, parts: Sequence[bytes]) -> bytes:
    return b'{"id":%b,"type":"message","status":"%b","role":"assistant","content":[%b]}' % (
        encode(id_),
        status,
        b",".join(parts),
    )


def reasoning_item(id_: str, block: ReasoningBlock, *, carries: bool = False) -> bytes:
    """Words and summary where there are any, and whatever seals them as `encrypted_content`.

    `carries`: words that nothing seals stand there too, since some vendors want them back (DeepSeek).
    """
    summary = block.pieces.get(ReasoningKind.SUMMARY, "")
    words = words_of(block)
    sealed = seal_of(block, id_)
    if carries and words and not sealed:
        kind = next(kind for kind in WORDS if kind in block.pieces)
        sealed = _wrap(kind, words, block)
    return b'{"id":%b,"type":"reasoning","summary":[%b]%b%b}' % (
        encode(id_),
        summary_part(summary) if summary else b"",
        b',"content":[' + words_part(words) + b"]" if words else b"",
        b',"encrypted_content":' + encode(sealed) if sealed else b"",
    )


def summary_part(text: str) -> bytes:
    return b'{"type":"summary_text","text":' + encode(text) + b"}"


def words_part(text: str) -> bytes:
    return b'{"type":"reasoning_text","text":' + encode(text) + b"}"


def words_of(block: ReasoningBlock) -> str:
    return "".join([text for kind, text in block.pieces.items() if kind in WORDS])


def seal_of(block: ReasoningBlock, id_: str) -> str:
    """What has to come back for the vendor to trust this reasoning, as opaque text; empty for nothing.

    Encrypted content goes out as it is under the id that it was made for. Any other seal travels in an
    envelope, a signature with the words that it signs.
    """
    for kind in _SEALS:
        if data := block.pieces.get(kind):
            native = kind is ReasoningKind.ENCRYPTED and block.format == RESPONSES_FORMAT and block.id == id_
            return data if native else _wrap(kind, data, block)
    if not block.signature:
        return ""
    kind = next((kind for kind in _SIGNED if block.pieces.get(kind)), None)
    kind = kind or next(iter(block.pieces), ReasoningKind.RAW)
    return _wrap(kind, block.pieces.get(kind, ""), block)


def signature_block(block: CallBlock, call_id: str) -> ReasoningBlock:
    """The item that goes before a call which is signed (Gemini's), since a call has no place for it."""
    part = call_signature(call_id, block.signature)
    return ReasoningBlock(
        part=-1, pieces={part.kind: ""}, signature=part.signature, id=part.id, format=part.format
    )


def output_items(blocks: Sequence[Block], places: Mapping[str, Place], ids: Ids, *, cut: bool) -> list[bytes]:
    """A whole output. `cut`: its last item is incomplete. Text and refusals in a row are one message."""
    items: list[bytes] = []
    parts: list[bytes] = []
    for position, block in enumerate(blocks):
        status = INCOMPLETE if cut and position == len(blocks) - 1 else COMPLETED
        match block:
            case TextBlock(text=text):
                parts.append(text_part(text))
            case RefusalBlock(text=text):
                parts.append(refusal_part(text))
            case ReasoningBlock():
                id_ = ids.reasoning(block.id, block.format, len(items))
                items.append(reasoning_item(id_, block, carries=ids.carries))
            case CallBlock():
                items += call_items(block, places, ids, len(items), status)
        after = blocks[position + 1] if position + 1 < len(blocks) else None
        if parts and not isinstance(after, TextBlock | RefusalBlock):
            items.append(message_item(ids.item("msg", len(items)), status, parts))
            parts = []
    return items


def call_items(
    block: CallBlock, places: Mapping[str, Place], ids: Ids, index: int, status: bytes
) -> list[bytes]:
    """A call's item, after the one that holds its signature where it has one."""
    if not block.signature:
        return [called(block, places, ids, index).item(status)]
    call = called(block, places, ids, index + 1)
    signature = reasoning_item(ids.item("rs", index), signature_block(block, call.call_id))
    return [signature, call.item(status)]


def _wrap(kind: ReasoningKind, text: str, block: ReasoningBlock) -> str:
    part = ReasoningPart(kind=kind, text=text, signature=block.signature, id=block.id, format=block.format)
    return wrap(part)


def _plain(arguments: str) -> str:
    try:
        return _input(arguments).input
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
