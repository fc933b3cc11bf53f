"""Whose calls a limit counts, and how that is written into a counter's key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from urllib.parse import quote

import msgspec

LONGEST_KEY = 500
"""In characters. PostgreSQL indexes at most some 2,700 bytes, and a character is up to 4."""
_LONGEST_TAIL = 200


class RunRef(msgspec.Struct, frozen=True):
    """A run of an agent, with what limits may ask of it."""

    agent: str
    run: str
    team: str | None = None
    user: str | None = None


class Subject(msgspec.Struct, frozen=True):
    """Who makes a call, as far as limits care. A run id is scoped to its agent."""

    agent: str
    team: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    run: str | None = None
    tags: tuple[str, ...] = ()
    user_verified: bool = False
    """False where only the caller says who the user is: a limit by user then counts (agent, user)."""
    ancestors: tuple[RunRef, ...] = ()
    """The runs above `run`, the nearest first: what the call spends counts in each of them too."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A pattern per dimension; None leaves the dimension out and counts all of it together.

    A pattern is a name or a glob, and each name that it matches is counted apart: `agent="*"` is a limit for
    each agent. A name equal to the pattern matches whatever characters it holds.
    """

    agent: str | None = None
    team: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    tag: str | None = None

    @property
    def only_agent(self) -> bool:
        return (self.team, self.user, self.key, self.model, self.tag) == (None,) * 5

    def may_match(self, agent: str) -> bool:
        return self.agent is None or _matches(self.agent, agent)

    def parts(self, subject: Subject, *, with_agent: bool) -> list[str]:
        """The key's part that says who is counted: none where the scope leaves the subject out, one, or one
        per matching tag. `with_agent` names the agent even where the scope doesn't.

        The agent itself was matched before, by `may_match`.
        """
        part = ""
        if with_agent or self.agent is not None or (self.user is not None and not subject.user_verified):
            part = f"|agent={quoted(subject.agent)}"
        for name, pattern, value in (
            ("team", self.team, subject.team),
            ("user", self.user, subject.user),
            ("key", self.key, subject.key),
            ("model", self.model, subject.model),
        ):
            if pattern is None:
                continue
            if value is None or not _matches(pattern, value):
                return []
            part += f"|{name}={quoted(value)}"
        if self.tag is None:
            return [part]
        return [f"{part}|tag={quoted(tag)}" for tag in _matching(self.tag, subject.tags)]


def quoted(value: str) -> str:
    """`value` as it may stand in a key: what could be read as another key, or not be stored, is escaped."""
    if value.isprintable():
        return value.replace("%", "%25").replace("|", "%7C")
    return "".join(
        char if char.isprintable() and char not in "%|" else quote(char, safe="", errors="surrogatepass")
        for char in value
    )


def joined(head: str, tail: str) -> str:
    """A counter's key: `head` (the limit and who is counted), then `tail` (the span of its window).

    What is too long for a database's index is cut and ends in its digest. The key keeps the first 200 or so
    characters of `head` and the first 135 of `tail` in any case, and two keys are never the same.
    """
    tail = _cut(tail, _LONGEST_TAIL)
    return f"{_cut(head, LONGEST_KEY - 1 - len(tail))}|{tail}"


def _cut(text: str, most: int) -> str:
    """`text` where it has less than `most` characters, else exactly so many: neither reads as the other."""
    if len(text) < most:
        return text
    return f"{text[: most - 65]}~{sha256(text.encode()).hexdigest()}"


def _matches(pattern: str, value: str) -> bool:
    return pattern == value or pattern == "*" or fnmatchcase(value, pattern)


def _matching(pattern: str, tags: Iterable[str]) -> list[str]:
    return [tag for tag in dict.fromkeys(tags) if _matches(pattern, tag)]
