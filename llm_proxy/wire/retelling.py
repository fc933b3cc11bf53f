"""A conversation's history with what its agent never saw: what a dialect has to say for that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from llm_proxy.wire.lenient import CANNOT_READ

_APART = "\n\n"
_sorted = msgspec.json.Encoder(order="deterministic").encode
_any = msgspec.json.Decoder().decode


class Called(NamedTuple):
    """A call of a turn. `arguments` is raw JSON, or a freeform tool's text."""

    id: str
    arguments: str


def unblanked(text: str) -> str:
    """Words whatever blanks an agent keeps of them."""
    return "".join(text.split())


def plain_arguments(arguments: str) -> bytes:
    """Arguments however an agent's JSON library writes them; a freeform tool's text as it is."""
    try:
        return _sorted(_any(arguments or "{}"))
    except (*CANNOT_READ, ValueError, RecursionError):
        return arguments.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant's turn among a request's messages, `start` to `end`."""

    start: int
    end: int
    text: str
    calls: tuple[Called, ...]


@dataclass(slots=True)
class Cut:
    """What goes out of a turn's words, asked text by text in order: stateful.

    `before`: so many characters of its start, blanks uncounted. `note`: what stands for its denied calls.
    """

    before: int
    note: str

    def text(self, text: str) -> str:
        """What stays of the next text."""
        text = self._behind(text)
        if self.note and self.note in text:
            text = text.replace(self.note, "", 1).removesuffix(_APART)
            self.note = ""
        return text

    def _behind(self, text: str) -> str:
        if not self.before:
            return text
        for place, character in enumerate(text):
            if not self.before:
                return text[place:].lstrip()
            self.before -= not character.isspace()
        return ""


@dataclass(frozen=True, slots=True)
class Put:
    """What comes into a turn, in the dialect's own JSON."""

    front: tuple[bytes, ...]
    """Messages before it."""
    calls: tuple[tuple[int, bytes], ...]
    """Calls by their places among all of its calls."""
    results: tuple[bytes, ...]
    """Their results: messages, or blocks of the message behind it."""
    seals: Collection[str]
    """Sealed reasoning that belongs to the messages in front."""

    def merged(self, kept: Sequence[bytes]) -> list[bytes]:
        """All calls in their order."""
        calls = list(kept)
        for place, call in self.calls:
            calls.insert(place, call)
        return calls


Retell = Callable[[Sequence[bytes], bytes | None, Cut, Put], tuple[list[bytes], bytes | None]]
"""`(turn, following, cut, put)`: the messages in place of a turn's, and of the one behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How a dialect's messages are read and retold."""

    turns: Callable[[Sequence[bytes]], list[Turn]]
    retell: Retell
    parts: Callable[[Sequence[bytes]], tuple[tuple[bytes, ...], tuple[bytes, ...]]]
    """The calls, and their results, out of messages that hold nothing else."""
