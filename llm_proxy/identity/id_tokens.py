"""Checking an ID token (OpenID Connect Core 1.0, 3.1.3.7): who signed in, at whose word, and for whom."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import cast

from llm_proxy.identity.claims import Claims, checked_times
from llm_proxy.identity.jose import Reason, TokenFault, read_token
from llm_proxy.identity.jwks import Algorithm, KeySet

LEEWAY_S = 30.0
"""How far the provider's clock may differ."""
_LONGEST_SUB = 255
_AGAIN = "Sign in again; if that doesn't help, ask who runs the provider."


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token must say: its issuer to the letter, our client id, and the nonce of this sign-in."""

    issuer: str
    client_id: str
    nonce: str


def checked_id_token(token: str, keys: KeySet, expected: Expected, now_s: float) -> Claims:
    """The claims of a token that is good. Raises `TokenFault`: the signature is looked at first."""
    unverified = read_token(token)
    if unverified.algorithm not in list(Algorithm):
        raise TokenFault(
            Reason.WRONG_ALGORITHM,
            f"The ID token is not signed by one of {', '.join(Algorithm)}: have the provider use RS256.",
        )
    candidates = keys.candidates(unverified)
    if not candidates:
        raise TokenFault(Reason.UNKNOWN_KEY, f"The provider has no key that fits the ID token. {_AGAIN}")
    if not any(key.signed(unverified) for key in candidates):
        raise TokenFault(Reason.BAD_SIGNATURE, f"The ID token's signature isn't the provider's. {_AGAIN}")
    claims = unverified.claims
    if claims.get("iss") != expected.issuer:
        raise TokenFault(
            Reason.UNKNOWN_ISSUER, f"The ID token is of another issuer (iss) than {expected.issuer}."
        )
    _check_audience(claims, expected.client_id)
    checked_times(claims, LEEWAY_S, now_s)
    if "iat" not in claims:
        raise _wrong("doesn't say when it was issued (iat)")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUB:
        raise _wrong("doesn't say whom it's about (sub)")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise _wrong("belongs to another sign-in (nonce)")
    return claims


def _check_audience(claims: Claims, client_id: str) -> None:
    """A token for others too must say that it was issued to us."""
    told = claims.get("aud")
    audiences = cast("list[object]", told) if isinstance(told, list) else [told]
    party = claims.get("azp")
    if client_id not in audiences or (party is None and len(audiences) > 1):
        raise TokenFault(Reason.WRONG_AUDIENCE, f"The ID token isn't for this proxy (aud). {_AGAIN}")
    if party is not None and party != client_id:
        raise TokenFault(Reason.WRONG_AUDIENCE, f"The ID token was issued to another (azp). {_AGAIN}")


def _wrong(how: str) -> TokenFault:
    return TokenFault(Reason.WRONG_CLAIMS, f"The ID token {how}. {_AGAIN}")
