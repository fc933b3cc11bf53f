"""Reading who calls out of a token's claims, once its signature is known to be good."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from llm_proxy.identity.headers import MAX_ID
from llm_proxy.identity.jose import Reason, TokenFault

MAX_ACTORS = 8
_LATEST_S = 253_402_300_800
"""The year 10000: later times are milliseconds, or a mistake."""
_SPIFFE = "spiffe://"
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")

Claims = Mapping[str, Any]


class AgentNames:
    """Which agent a claim's value stands for: literal values first, then globs as they're written.

    A `*` stands for any characters but `/` and `:`, so that it can't reach into another namespace. Without
    entries the value is the agent's id.
    """

    __slots__ = ("_exact", "_globs")

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._exact = dict(entries)
        self._globs = [(_glob(value), agent) for value, agent in entries.items() if "*" in value]

    def find(self, value: str) -> str | None:
        if not self._exact:
            return value
        if (agent := self._exact.get(value)) is not None:
            return agent
        return next((agent for glob, agent in self._globs if glob.fullmatch(value)), None)


@dataclass(frozen=True, slots=True)
class Issuer:
    """What the config says of an issuer. `agent`, `user`, `role` and `clearance` are paths of claims."""

    name: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    agents: AgentNames
    agent: str = "sub"
    user: str = ""
    role: str = ""
    clearance: str = ""
    leeway_s: float = 30.0
    user_required: bool = False

    @property
    def is_trust_domain(self) -> bool:
        """A SPIFFE one, whose tokens need not name their issuer."""
        return self.name.startswith(_SPIFFE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a good token says. `agent` is the config's id; `until_s` is when it ends, leeway included."""

    agent: str
    subject: str
    """What the token is about, and the agent's own claim: the same for every token of one caller."""
    user: str
    role: str
    clearance: str
    actors: tuple[str, ...]
    until_s: float


def issuer_of(claims: Claims) -> str:
    """The name under which to look for a token's issuer. Raises `TokenFault` where it names none.

    A JWT-SVID may leave `iss` out: then its subject's trust domain is its issuer.
    """
    issuer, subject = claims.get("iss"), claims.get("sub")
    if issuer is None and isinstance(subject, str) and subject.startswith(_SPIFFE):
        return _SPIFFE + subject.removeprefix(_SPIFFE).partition("/")[0]
    if not isinstance(issuer, str) or not issuer:
        raise TokenFault(Reason.UNKNOWN_ISSUER, "The token names no issuer (iss). Get one from your issuer.")
    return issuer


def identify(claims: Claims, issuer: Issuer, now_s: float) -> Identity:
    """Who it is. `claims` are those of a token that `issuer` signed. Raises `TokenFault`."""
    until_s = checked_times(claims, issuer.leeway_s, now_s)
    _check_audience(claims.get("aud"), issuer.audiences)
    subject = _text(claims, "sub", required=False)
    if issuer.is_trust_domain:
        _check_spiffe(subject, issuer.name)
    value = _text(claims, issuer.agent)
    agent = issuer.agents.find(value)
    if agent is None:
        raise unknown_agent(value)
    user = _text(claims, issuer.user, required=issuer.user_required) if issuer.user else ""
    if issuer.user == "email" and claims.get("email_verified", True) is not True:
        raise _wrong("says that its email is not verified, so it's nobody's")
    return Identity(
        agent=agent,
        subject=f"{subject}\n{value}",
        user=user,
        role=_single(claims, issuer.role) if issuer.role else "",
        clearance=_single(claims, issuer.clearance) if issuer.clearance else "",
        actors=tuple(_actors(claims)),
        until_s=until_s,
    )


def unknown_agent(value: str) -> TokenFault:
    return TokenFault(
        Reason.UNKNOWN_AGENT,
        f"The token is good, and {value!r} is no agent here: "
        "an operator maps it to one under identity.issuers[].agents.",
    )


def claim(claims: Claims, path: str) -> object:
    """The claim at `path`; None where there is none.

    A name may hold dots itself (`kubernetes.io`): the longest one that stands there is taken.
    """
    if path in claims:
        return claims[path]
    names = path.split(".")
    for n in range(len(names) - 1, 0, -1):
        inner = claims.get(".".join(names[:n]))
        if isinstance(inner, dict):
            found = claim(cast("dict[str, Any]", inner), ".".join(names[n:]))
            if found is not None:
                return found
    return None


def checked_times(claims: Claims, leeway_s: float, now_s: float) -> float:
    """When the token ends, leeway included."""
    expires, begins, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise _wrong("has no exp: a token that never ends is not taken")
    if issued is not None and issued > expires:
        raise _wrong("was issued (iat) after its end (exp)")
    if now_s >= expires + leeway_s:
        raise TokenFault(Reason.EXPIRED, "The token has expired. Get a new one from your issuer.")
    if any(time is not None and time > now_s + leeway_s for time in (begins, issued)):
        raise TokenFault(
            Reason.NOT_YET_VALID,
            "The token is not valid yet (nbf or iat lies ahead). Check the clocks, or wait.",
        )
    return expires + leeway_s


def _time(claims: Claims, name: str) -> float | None:
    """A NumericDate: seconds, whole or not; text never."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_S:
        return float(value)
    raise _wrong(f"has an {name} that is no time in seconds")


def _check_audience(told: object, audiences: frozenset[str]) -> None:
    named = cast("list[object]", told) if isinstance(told, list) else [told]
    if not any(isinstance(one, str) and one in audiences for one in named):
        raise TokenFault(
            Reason.WRONG_AUDIENCE,
            "The token is for another audience (aud) than this proxy. Ask your issuer for one with "
            "the audience that identity.issuers[].audience names.",
        )


def _check_spiffe(subject: str, domain: str) -> None:
    if not _SPIFFE_ID.fullmatch(subject) or not subject.startswith(f"{domain}/"):
        raise _wrong(f"has a sub that is no SPIFFE ID of {domain}")


def _text(claims: Claims, path: str, *, required: bool = True) -> str:
    value = claim(claims, path)
    if value is None and not required:
        return ""
    if value is None:
        raise _wrong(f"has no claim {path}")
    return _checked(value, path)


def _checked(value: object, path: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not value.isprintable():
        raise _wrong(f"has a claim {path} that is no text of 1 to {MAX_ID} printable characters")
    return value


def _single(claims: Claims, path: str) -> str:
    """Text, or a list of one. Of several none is left out silently."""
    value = claim(claims, path)
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        values = cast("list[object]", value)
        if len(values) > 1:
            raise _wrong(f"has several values in its claim {path}, where one can count")
        return _checked(values[0], path)
    return _checked(value, path)


def _actors(claims: Claims) -> Iterable[str]:
    """Who acts, the nearest first (RFC 8693). `may_act` is about tokens yet to be issued, and isn't read."""
    actor, depth = claims.get("act"), 0
    while actor is not None:
        depth += 1
        if depth > MAX_ACTORS:
            raise _wrong(f"has a delegation chain (act) of more than {MAX_ACTORS}")
        if not isinstance(actor, dict):
            raise _wrong("has an act that is no object")
        here = cast("dict[str, Any]", actor)
        name = here.get("sub", here.get("client_id"))
        actor_id = _checked(name, "act.sub")
        issuer = here.get("iss")
        if issuer is not None and issuer != claims.get("iss"):
            actor_id = _checked(f"{actor_id} ({_checked(issuer, 'act.iss')})", "act.sub")
        yield actor_id
        actor = here.get("act")


def _glob(value: str) -> re.Pattern[str]:
    """Within a name each middle piece is taken where it's first found, so that no value takes for ever."""
    return re.compile("".join(_glob_name(name) for name in re.split("([/:])", value)))


def _glob_name(name: str) -> str:
    if "*" not in name:
        return re.escape(name)
    first, *between, last = map(re.escape, name.split("*"))
    middle = "".join(f"(?>[^/:]*?{piece})" for piece in between)
    return f"{first}{middle}[^/:]*{last}"


def _wrong(how: str) -> TokenFault:
    return TokenFault(Reason.WRONG_CLAIMS, f"The token {how}. Ask your issuer's operator.")
