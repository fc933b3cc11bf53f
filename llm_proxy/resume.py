"""What a reply that was cut leaves to the target which goes on with it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from llm_proxy.wire.dialect import Renderer


@dataclass(frozen=True, slots=True)
class Piece:
    """An attempt's part of a reply: all that its target sent.

    `chars` of its text, as far as it was new, reached the caller.
    """

    dialect: str
    emitted: io.BytesIO
    chars: int


@dataclass(frozen=True, slots=True)
class Left:
    """Where the writing of a reply stopped."""

    text: str
    """All that the caller has of the reply's text."""
    parts: int
    """Parts of reasoning that it has."""
    renderer: Renderer
    """Goes on with the same ids and numbers."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A cut reply. `used`: output tokens that its attempts came to, as far as is known."""

    left: Left
    written: tuple[bytes, ...]
    """All that the caller got."""
    pieces: tuple[Piece, ...]
    used: int = 0
