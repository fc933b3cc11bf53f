"""Checks a receipt where a tool runs: needs this package's canonical form, PyJWT, and the public key.

Nothing of the proxy is imported. Whoever executes the action still has to refuse a `jti` that it has executed
before: remember each until the receipt's `until`, after which no receipt of that call is good any more.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jwt

from llm_proxy.policy.arguments import BadArgs, parse_arguments
from llm_proxy.policy.canonical import Json, digest

TYPE = "receipt+jwt"
"""The header's `typ`, so that no other token passes for a receipt."""
_IDS = ("run_id", "call_id", "tool", "tool_call_id", "args_sha256")
REQUIRED = ["iss", "sub", "iat", "exp", "until", "jti", *_IDS]
_MOST_BYTES, _DEEPEST = 1_048_576, 64


class ReceiptRefused(Exception):
    """The action must not be executed; the message says why."""


def verify_receipt(
    token: str,
    jwks: Mapping[str, Any] | str,
    *,
    tool: str,
    arguments: Json,
    issuer: str | None = None,
    leeway_s: float = 5,
) -> dict[str, Any]:
    """The receipt's claims, where it allows `tool` with exactly `arguments` now. Raises `ReceiptRefused`.

    `jwks` is the key set of `/.well-known/jwks.json`, or its address, which is fetched and kept for five
    minutes. `arguments` are the object, or its JSON text. `issuer`, where given, must be who signed.
    """
    try:
        key = _key(token, jwks)
        claims = jwt.decode(
            token, key, algorithms=["EdDSA"], issuer=issuer, leeway=leeway_s, options={"require": REQUIRED}
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ReceiptRefused(f"The receipt is not good: {error}") from error
    if claims["tool"] != tool:
        raise ReceiptRefused(f"The receipt is for the tool {claims['tool']!r}, not {tool!r}")
    if not hmac.compare_digest(str(claims["args_sha256"]), action_digest(tool, arguments)):
        raise ReceiptRefused("The receipt is for other arguments")
    return claims


def action_digest(tool: str, arguments: Json) -> str:
    """SHA-256 (hex) of the canonical `[tool, arguments]`. Raises `ReceiptRefused` where they have none."""
    if isinstance(arguments, str):
        read = parse_arguments(arguments, max_bytes=_MOST_BYTES, max_depth=_DEEPEST)
        if isinstance(read, BadArgs):
            raise ReceiptRefused(f"The {read.why}")
        arguments = read
    try:
        return digest(tool, arguments)
    except (ValueError, TypeError, RecursionError) as error:
        raise ReceiptRefused(f"The arguments have no canonical form: {error}") from error


def _key(token: str, jwks: Mapping[str, Any] | str) -> jwt.PyJWK:
    header = jwt.get_unverified_header(token)
    if header.get("typ") != TYPE:
        raise ValueError("it is a token of another type")
    if isinstance(jwks, str):
        found = _client(jwks).get_signing_key(str(header.get("kid")))
    else:
        keys = jwt.PyJWKSet.from_dict(dict(jwks)).keys
        found = next((key for key in keys if key.key_id == header.get("kid")), None)
    if found is None:
        raise ValueError("no key of the set signed it")
    if found.algorithm_name != "EdDSA":
        raise ValueError("its key is of another kind")
    return found


@lru_cache(maxsize=16)
def _client(address: str) -> jwt.PyJWKClient:
    return jwt.PyJWKClient(address, cache_keys=False, lifespan=300, timeout=5)
