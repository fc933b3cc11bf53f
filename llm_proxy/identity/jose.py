"""A signed token taken apart (RFC 7515, RFC 7519): strictly, with bounds, and believing nothing of it yet."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Never, cast

MAX_TOKEN = 16_384
"""Characters. Headers of a request are about as long at most."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_TYPES = frozenset({"jwt", "jose", "at+jwt", "application/at+jwt", "application/jwt"})
"""What `typ` may say: tokens for other purposes (logout, DPoP proofs, security events) let nobody in."""
_FOREIGN = ("crit", "b64", "zip", "cty")
"""Header members that change how a token is to be read. None of them is understood here."""


class Reason(StrEnum):
    """Why a token let nobody in, as the `refusals` listing counts it."""

    MALFORMED = "malformed_token"
    UNKNOWN_ISSUER = "unknown_issuer"
    WRONG_ALGORITHM = "wrong_algorithm"
    UNKNOWN_KEY = "unknown_signing_key"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_CLAIMS = "wrong_claims"
    UNKNOWN_AGENT = "unknown_agent"


class TokenFault(Exception):
    """A token that lets nobody in. `message` says why and what to do, without the token."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token's parts. Nobody has looked at the signature."""

    algorithm: str
    key_id: str | None
    claims: dict[str, Any]
    signed: bytes
    """What the signature is over."""
    signature: bytes


def read_token(token: str) -> Unverified:
    """Raises `TokenFault` for what is no signed token, or one that would have to be read in another way.

    The header's `jku`, `jwk`, `x5u` and `x5c` name keys that the sender chose: they're never looked at.
    """
    if len(token) > MAX_TOKEN:
        raise _malformed(f"is over {MAX_TOKEN:,} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise _malformed("is not three base64url parts with dots between")
    header = _object(_decoded(parts[1], "header"), "header")
    algorithm, key_id, type_ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise _malformed("names no algorithm in its header")
    if key_id is not None and not isinstance(key_id, str):
        raise _malformed("has a kid that is no text")
    if type_ is not None and (not isinstance(type_, str) or type_.lower() not in _TYPES):
        raise _malformed("is no access or ID token: its typ says that it is for something else")
    if foreign := [name for name in _FOREIGN if name in header]:
        raise _malformed(f"has {foreign[0]!r} in its header, which is not understood here")
    claims = _object(_decoded(parts[2], "payload"), "payload")
    signature = _decoded(parts[3], "signature")
    return Unverified(algorithm, key_id, claims, token[: parts.end(2)].encode(), signature)


def _decoded(part: str, name: str) -> bytes:
    """Only the one spelling of its bytes: base64 can leave bits over, which must be zero."""
    if len(part) % 4 == 1:
        raise _malformed(f"has a {name} that is no base64url")
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode():
        raise _malformed(f"has a {name} that is no base64url")
    return raw


def _object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):  # wrong UTF-8 and numbers of thousands of digits are ValueErrors too
        raise _malformed(f"has a {name} that is no JSON, or names a member of it twice") from None
    if not isinstance(value, dict):
        raise _malformed(f"has a {name} that is no JSON object")
    return cast("dict[str, Any]", value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two readers may take different ones of two members with one name, so there must not be two."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _no_number(constant: str) -> Never:
    raise ValueError(f"{constant} is no JSON")


def _malformed(how: str) -> TokenFault:
    return TokenFault(Reason.MALFORMED, f"The token {how}. Get a new one from your issuer.")
