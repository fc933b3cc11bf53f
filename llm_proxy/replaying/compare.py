"""Whether a live request asks what a recorded one asked, and where not. Pure.

Requests are compared as JSON: the order of keys and white space mean nothing, `1.0` is `1`, and a member that
is null is one that isn't there. What only says how the reply comes, or whose it is, is left out of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import msgspec

from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import WireRequest

IGNORED = frozenset({"stream", "stream_options", "metadata", "user", "prompt_cache_key", "safety_identifier"})
"""Top-level keys that are not compared."""
ITEM_KEYS = frozenset({"id", "status"})
"""Of an item in a Responses history: the provider's names for it. A call's own id is `call_id`."""
MOST = 5
"""Differences that are told of one request."""
SHOWN = 160
"""Characters of each side that are shown."""
_BEFORE = 40
_MASKS = re.compile(r"\[redacted\]|tok_[0-9a-f]{24}|\*{4}[^\W_]{0,4}")
"""What stands in a record for a value that was masked: any text may have stood there."""

Json = Any
Object = dict[str, Any]
Array = list[Any]
Step = str | int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One place where two requests part. `message` counts from 1; 0 is a key beside the messages.

    A side that has nothing there is None. Long values are cut: what is shown begins near the difference.
    """

    message: int
    path: str
    recorded: str | None
    live: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is compared."""

    dialect: str
    key: str
    """The top-level key of the messages."""
    messages: tuple[Json, ...]
    listed: bool
    """They came as a list, and not as one text."""
    rest: Mapping[str, Json]
    digest: bytes
    """Of all of it: the same for requests that ask the same."""


def asked(dialect: Dialect, request: WireRequest) -> Asked:
    """What `request` asks. Its body was parsed, so it is a JSON object."""
    try:
        body: Object = _plain(msgspec.json.decode(request.body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        body = {request.messages_key: request.body.decode("utf-8", "replace")}
    said: Json = body.pop(request.messages_key, [])
    listed = isinstance(said, list)
    messages = cast(Array, said) if listed else [said]
    if dialect.keeps:
        messages = [_unnamed(item) for item in messages]
    rest = {key: value for key, value in body.items() if key not in IGNORED}
    whole = msgspec.json.encode([dialect.name, messages, rest], order="deterministic")
    digest = hashlib.sha256(whole).digest()
    return Asked(dialect.name, request.messages_key, tuple(messages), listed, rest, digest)


def differences(recorded: Asked, live: Asked, *, masked: bool) -> list[Difference]:
    """Where they part: messages first, in order, then other keys; none where they ask the same.

    `masked`: the recorded one holds masks, and any text may stand where one does.
    """
    if recorded.digest == live.digest:
        return []
    if recorded.dialect != live.dialect:
        return [Difference(message=0, path="(dialect)", recorded=recorded.dialect, live=live.dialect)]
    return list(islice(_all(recorded, live, masked=masked), MOST))


def same(recorded: Asked, live: Asked, *, masked: bool) -> bool:
    if recorded.digest == live.digest:
        return True
    return masked and recorded.dialect == live.dialect and not differences(recorded, live, masked=True)


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast(Object, value).items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in cast(Array, value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _unnamed(item: Json) -> Json:
    if not isinstance(item, dict):
        return item
    members = cast(Object, item)
    if members.get("type") == "item_reference":
        return members
    return {key: value for key, value in members.items() if key not in ITEM_KEYS}


def _all(recorded: Asked, live: Asked, *, masked: bool) -> Iterator[Difference]:
    for at in range(max(len(recorded.messages), len(live.messages))):
        ours, theirs = _item(recorded.messages, at), _item(live.messages, at)
        path = (recorded.key, at) if recorded.listed or live.listed else (recorded.key,)
        yield from _Walk(at + 1, masked).between(ours, theirs, path)
    for key in dict.fromkeys((*recorded.rest, *live.rest)):
        ours, theirs = recorded.rest.get(key, _ABSENT), live.rest.get(key, _ABSENT)
        yield from _Walk(0, masked).between(ours, theirs, (key,))


class _Absent:
    pass


_ABSENT = _Absent()


def _item(items: Sequence[Json], at: int) -> Json:
    return items[at] if at < len(items) else _ABSENT


@dataclass(frozen=True, slots=True)
class _Walk:
    """Through two values at once."""

    message: int
    masked: bool

    def between(self, ours: Json, theirs: Json, path: tuple[Step, ...]) -> Iterator[Difference]:
        """The differences, the outermost where a side has nothing or another kind of value."""
        if type(ours) is type(theirs) and ours == theirs:
            return
        if isinstance(ours, dict) and isinstance(theirs, dict):
            one, other = cast(Object, ours), cast(Object, theirs)
            for key in dict.fromkeys((*one, *other)):
                yield from self.between(one.get(key, _ABSENT), other.get(key, _ABSENT), (*path, key))
        elif isinstance(ours, list) and isinstance(theirs, list):
            first, second = cast(Array, ours), cast(Array, theirs)
            for at in range(max(len(first), len(second))):
                yield from self.between(_item(first, at), _item(second, at), (*path, at))
        elif not (self.masked and _may_be(ours, theirs)):
            shown = _shown(ours, theirs)
            yield Difference(message=self.message, path=_path(path), recorded=shown[0], live=shown[1])


def _may_be(ours: Json, theirs: Json) -> bool:
    return isinstance(ours, str) and isinstance(theirs, str) and fits_mask(ours, theirs)


def fits_mask(recorded: str, live: str) -> bool:
    """Whether `live` may be what `recorded` was before values in it were masked. Linear in both."""
    first, *parts = _MASKS.split(recorded)
    if not parts or not live.startswith(first):
        return False
    at, last = len(first), parts.pop()
    for part in parts:
        found = live.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return live.endswith(last) and len(live) - len(last) >= at


def _shown(ours: Json, theirs: Json) -> tuple[str | None, str | None]:
    one, other = _text(ours), _text(theirs)
    if one is None or other is None:
        return _clip(one, 0), _clip(other, 0)
    parts = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    start = max(0, parts - _BEFORE)
    return _clip(one, start), _clip(other, start)


def _text(value: Json) -> str | None:
    if value is _ABSENT:
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode("utf-8", "replace")


def _clip(text: str | None, start: int) -> str | None:
    if text is None:
        return None
    cut = text[start : start + SHOWN]
    before, after = "…" if start else "", "…" if start + SHOWN < len(text) else ""
    return f"{before}{cut}{after}"


def _path(steps: tuple[Step, ...]) -> str:
    """As `messages[2].content[0].text`, cut where keys are very long."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:80]}" for step in steps)
    return text.removeprefix(".")[:400]
