"""What a request declares: the tools of its caller, those that the provider runs, the choice among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from llm_proxy.wire.cutting import Path
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import array, lenient
from llm_proxy.wire.request import WireRequest

_VERSION = re.compile(r"(?:_preview)?(?:_20\d{6}|_20\d\d_\d\d_\d\d)?\Z")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BAD = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_PREFIX = 55
"""Of a longer name of a server's tool a stand-in is made, which keeps so much of its start."""

MCP_LIST = "mcp_list_tools"
"""Under which a reply says that the provider asked a server for its tools."""

_encode = msgspec.json.Encoder().encode
raws = lenient(dict[str, msgspec.Raw])


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the provider runs itself: nothing can stop it once it is declared."""

    name: str
    """By which it is judged: its type without a version, or `mcp__LABEL` for a server's tools."""
    arguments: bytes
    """The declaration, as a JSON object."""
    uses: tuple[str, ...] = ()
    """Other names under which a reply may say that it was used."""
    prefix: str = ""
    """Of a server: what the names of its tools begin with."""
    free: tuple[str, ...] | None = ()
    """Of a server: those of its tools, in full, that run without being asked for; None = every one."""
    unseen: bool = False
    """No reply says whether it was used."""

    def covers(self, use: str) -> bool:
        """Whether a use under this name is one of it."""
        if use == self.name or use in self.uses:
            return True
        return bool(self.prefix) and (use == MCP_LIST or _BAD.sub("_", use).startswith(self.prefix))


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One declaration. The caller's own tool has `names`, by which its calls are judged, or a `family`."""

    paths: tuple[Path, ...]
    """What goes with it; items of the input are counted from the last (-1)."""
    names: tuple[str, ...] = ()
    family: str = ""
    """What the names of a toolset's members begin with: `browser.`."""
    hosted: tuple[Hosted, ...] = ()
    fixed: bool = False
    """It stands inside a message, from where it can't be taken out."""

    @property
    def title(self) -> str:
        """What people call it."""
        return next(iter((*self.names, *(one.name for one in self.hosted))), self.family.rstrip("."))

    @property
    def chosen_by(self) -> frozenset[str]:
        """The names by which a tool choice may ask for it."""
        return frozenset((*self.names, *(one.name for one in self.hosted)))


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of which tool to call."""

    key: str
    required: bool = False
    """Some tool has to be called."""
    named: str = ""
    """This one has to be."""
    listed: tuple[tuple[Path, frozenset[str]], ...] | None = None
    """Only these may be: where each stands, and its names."""


class Declarations(msgspec.Struct, frozen=True):
    tools: tuple[Declared, ...] = ()
    choices: tuple[Choice, ...] = ()
    follow: Mapping[str, tuple[str, ...]] = {}
    """Top-level keys that make no sense without the list that a key holds."""


def plain(kind: str) -> str:
    """A built-in tool's type without its version: `web_search` of `web_search_preview_2025_03_11`."""
    return _VERSION.sub("", kind)


def snake(word: str) -> str:
    """`google_search` of `googleSearch`."""
    return _WORDS.sub("_", word).lower()


def server(label: str, arguments: bytes, free: Iterable[str] | None, *, unseen: bool = False) -> Hosted:
    """An MCP server that the provider talks to. `free`: tools that need no approval; None = every one."""
    return Hosted(
        name=f"mcp__{label}",
        arguments=arguments,
        prefix=_BAD.sub("_", f"{label}__")[:_LONGEST_PREFIX],
        free=None if free is None else tuple([f"{label}__{tool}" for tool in free]),
        unseen=unseen,
    )


def remote_server(
    label: str, url: msgspec.Raw | str, allowed: list[str] | None, *, unseen: bool = False
) -> Hosted:
    """One whose tools all run unasked, in the words of the Responses dialect: `check` knows one shape."""
    said = {"server_label": label, "server_url": url, "require_approval": "never"}
    arguments = _encode(said if allowed is None else said | {"allowed_tools": allowed})
    return server(label, arguments, allowed, unseen=unseen)


def elements(request: WireRequest, key: str, what: str = "a tool") -> list[msgspec.Raw]:
    """The elements of the list at a top-level key; none where there is no list.

    Raises `ProxyError` where an object in it names a key twice: the upstream may read another declaration.
    """
    value = given(request, key)
    if value is None:
        return []
    refuse_ambiguous(value, key, what)
    return array(value) or []


def given(request: WireRequest, key: str) -> bytes | None:
    """The value of a top-level key; None where it is absent or null."""
    span = request.spans.get(key)
    value = request.body[slice(*span)] if span else b"null"
    return None if value == b"null" else value


def as_object(value: bytes) -> bytes:
    """The value itself where it is an object, else an object that holds it."""
    return value if value.startswith(b"{") else b'{"value":%b}' % value


def nowhere_else(request: WireRequest) -> list[tuple[int, bytes]]:
    """No message declares a tool."""
    return []
