"""Where a call would send something: compares parsed addresses, URLs and paths with what a policy names.

Every check answers True only for a value it understood fully. A missing or empty value fails, and of a list
every element must hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from llm_proxy.policy.canonical import Json
from llm_proxy.policy.hosts import host_matches, parse_domain, parse_host, parse_pattern
from llm_proxy.policy.paths import normal_path, under
from llm_proxy.policy.schema import Destination

Scopes: TypeAlias = Mapping[str, tuple[str, ...]]
Check: TypeAlias = Callable[[Json, Scopes], bool]
"""Whether an argument's value may go where it says, for an agent with these scopes."""

SCOPE = "scope:"

# One recipient: an address, or a name without specials before an address in angle brackets
_RECIPIENT = re.compile(r"(?:\"?[^\x00-\x1f\x7f\"<>@,;:\\()\[\]]*\"?[ ]*<([^<>\s]+)>|([^<>\s\"]+))\Z")
# RFC 5321 dot-string, less `%` and `!`, by which some servers relay elsewhere
_LOCAL_PART = re.compile(r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9#$&'*+/=?^_`{|}~-]+)*\Z")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]+)([^?#]*)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@%\[\]]+)(?::([0-9]{1,5}))?\Z")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "ssh": 22}


class Url(NamedTuple):
    """`port` is the scheme's own where the URL names none, and None where the scheme has none either."""

    scheme: str
    host: str
    port: int | None
    path: str


def parse_url(text: str) -> Url | None:
    """An absolute URL that every parser splits alike; None for user info, backslashes, blanks, odd hosts."""
    if len(text) > 8192 or _UNSAFE.search(text):
        return None
    parts = _URL.match(text)
    authority = _AUTHORITY.match(parts[2]) if parts else None
    if parts is None or authority is None:
        return None
    host = parse_host(authority[1])
    scheme = parts[1].lower()
    port = int(authority[2]) if authority[2] else _DEFAULT_PORTS.get(scheme)
    if host is None or (port is not None and not 0 < port < 65536):
        return None
    return Url(scheme, host, port, parts[3] or "/")


def recipient_domains(text: str) -> tuple[str, ...] | None:
    """The domains of every address in a recipient field (`,` or `;` between them); None if unsure."""
    if len(text) > 65_536:
        return None
    domains: list[str] = []
    for item in re.split("[,;]", text):
        found = _RECIPIENT.match(item.strip(" "))
        local, at, domain = (found[1] or found[2]).rpartition("@") if found else ("", "", "")
        parsed = parse_domain(domain) if at and _LOCAL_PART.match(local) else None
        if parsed is None:
            return None
        domains.append(parsed)
    return tuple(domains)


def compile_check(destination: Destination) -> Check:
    """The check of one destination. Raises ValueError naming the entry that can't be understood."""
    if destination.email_domains:
        return _each(_email_check(destination.email_domains))
    if destination.hosts:
        return _each(_url_check(destination))
    return _each(_path_check(_prefixes(destination.path_prefixes)))


def compile_scope_check(name: str) -> Check:
    """The check that every value is one of the agent's scope `name`; integers count as their digits."""

    def check(value: Json, scopes: Scopes) -> bool:
        allowed = scopes.get(name, ())
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(_scope_text(item) in allowed for item in values)

    return check


def _scope_text(value: Json) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _each(holds: Callable[[str], bool]) -> Check:
    def check(value: Json, scopes: Scopes) -> bool:
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(isinstance(item, str) and holds(item) for item in values)

    return check


def _email_check(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    allowed = tuple(_pattern(text, "email_domains") for text in patterns)

    def holds(text: str) -> bool:
        domains = recipient_domains(text)
        return domains is not None and all(any(host_matches(p, d) for p in allowed) for d in domains)

    return holds


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int | None

    def holds(self, url: Url) -> bool:
        port = self.port or _DEFAULT_PORTS.get(url.scheme)
        return url.port == port and host_matches(self.host, url.host)


def _url_check(destination: Destination) -> Callable[[str], bool]:
    places = tuple(_place(text) for text in destination.hosts)
    schemes = frozenset(scheme.lower() for scheme in destination.schemes)
    below = _path_check(_prefixes(destination.path_prefixes)) if destination.path_prefixes else None

    def holds(text: str) -> bool:
        url = parse_url(text)
        if url is None or url.scheme not in schemes or not any(place.holds(url) for place in places):
            return False
        return below is None or below(url.path)

    return holds


def _place(text: str) -> _Place:
    """`api.example.com`, `*.example.com`, `127.0.0.1:8080`; without a port, the scheme's own."""
    found = re.match(r"(.*?)(?::([0-9]{1,5}))?\Z", text)
    host, port = (found[1], found[2]) if found else (text, None)
    return _Place(_pattern(host, "hosts"), int(port) if port else None)


def _path_check(prefixes: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda text: bool(text) and under(prefixes, text)


def _pattern(text: str, key: str) -> str:
    pattern = parse_pattern(text)
    if pattern is None:
        raise ValueError(f"{key} holds {text!r}, which is no domain name; write example.com or *.example.com")
    return pattern


def _prefixes(texts: tuple[str, ...]) -> tuple[str, ...]:
    normal = tuple(normal_path(text) for text in texts)
    if None in normal or "" in normal:
        raise ValueError("path_prefixes holds an empty path, or one with a backslash or too many '..'")
    return tuple(path for path in normal if path is not None)
