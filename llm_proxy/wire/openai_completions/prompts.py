"""Prompts as completions and embeddings take them: a text, texts, token ids, or lists of those."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_proxy.errors import ProxyError
from llm_proxy.wire.faults import invalid
from llm_proxy.wire.lenient import CANNOT_READ, as_text
from llm_proxy.wire.request import MessageFacts
from llm_proxy.wire.spans import Span, array_spans

MAX_PROMPTS = 10_000
APART = 64
"""Up to so many prompts are told apart; more are kept as the one array they came as.

Each that is told apart costs a hash and a row of the store, and thousands of short inputs in one embeddings
request are usual.
"""

_STAND_IN = " token"
"""A text of one token, in the place of each token id: what is counted is as long as what was sent."""

_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ids = msgspec.json.Decoder(list[int]).decode
_content = msgspec.json.Decoder(str | list[str | int | list[int]]).decode


class Prompts(NamedTuple):
    spans: tuple[Span, ...]
    """Where each of them stands, or where all of them do."""
    number: int


def read_prompts(body: bytes, key: str, at: Span, *, objects: bool = False) -> Prompts:
    """The prompts that are the value of `key`, which stands at `at`; none for null.

    `objects` admits entries that are JSON objects (images of multimodal embeddings). Raises `ProxyError`.
    """
    start, end = at
    first = body[start : start + 1]
    if body[start:end] == b"null":
        return Prompts((), 0)
    if first == b'"' or (objects and first == b"{"):
        return Prompts((at,), 1)
    if first != b"[":
        raise _unknown(key, key)
    entries = _array(body[start:end])
    if not entries:
        raise invalid(f"{key} is empty: send at least one", key)
    kinds = {_kind(bytes(entry)) for entry in entries}
    if kinds == {"id"}:
        _check_ids(body[start:end], key)
        return Prompts((at,), 1)
    if len(entries) > MAX_PROMPTS:
        raise invalid(f"{key} holds {len(entries)}: send at most {MAX_PROMPTS}", key)
    _check(entries, kinds, key, objects=objects)
    spans = array_spans(body, start, entries) if len(entries) <= APART else (at,)
    return Prompts(spans, len(entries))


def prompt_facts(raw: bytes) -> MessageFacts:
    """One prompt, or several that were kept together: its text, and as many tokens as it has token ids."""
    said, ids = _read(raw)
    return MessageFacts(role="user", texts=_texts(said, ids), user_text="\n".join(said))


def input_facts(raw: bytes) -> MessageFacts:
    """The same of what is embedded: documents, which nobody said."""
    return MessageFacts(texts=_texts(*_read(raw)))


def _read(raw: bytes) -> tuple[list[str], int]:
    """The texts that stand in it, and how many token ids; what has no known shape is its own JSON text."""
    try:
        content: str | list[str | int | list[int]] = _content(raw)
    except CANNOT_READ:
        return [as_text(raw)], 0
    if isinstance(content, str):
        return [content], 0
    ids = sum(len(entry) if isinstance(entry, list) else 1 for entry in content if not isinstance(entry, str))
    return [entry for entry in content if isinstance(entry, str)], ids


def _texts(said: list[str], ids: int) -> tuple[str, ...]:
    return tuple([text for text in (*said, _STAND_IN * ids) if text])


def _kind(raw: bytes) -> str:
    match raw[:1]:
        case b'"':
            return "text"
        case b"[":
            return "ids"
        case b"{":
            return "object"
        case _:
            return "id"


def _check(entries: list[msgspec.Raw], kinds: set[str], key: str, *, objects: bool) -> None:
    """Raises `ProxyError` unless the entries are all texts (objects among them), or all lists of ids."""
    if kinds == {"ids"}:
        for index, entry in enumerate(entries):
            _check_ids(bytes(entry), f"{key}[{index}]")
        return
    usual = {"text", "object"} if objects else {"text"}
    if not kinds <= usual:
        odd = next(index for index, entry in enumerate(entries) if _kind(bytes(entry)) not in usual)
        raise _unknown(f"{key}[{odd}]", key)


def _check_ids(raw: bytes, where: str) -> None:
    try:
        ids = _ids(raw)
    except msgspec.DecodeError as error:
        raise invalid(f"{where} is not a list of token ids: send whole numbers", where) from error
    if not ids:
        raise invalid(f"{where} is empty: send at least one token id", where)


def _unknown(where: str, key: str) -> ProxyError:
    return invalid(
        f"{where} is of no kind that can be read: send a string, an array of strings, an array of token ids, "
        f"or an array of such arrays as {key}",
        where,
    )
