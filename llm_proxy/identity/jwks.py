"""An issuer's public keys (RFC 7517), and checking a signature with one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm as Verifier
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from llm_proxy.identity.jose import Unverified

MAX_BYTES = 512 * 1024
MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
"""A smaller key can be broken; a larger one makes every check slow."""
_MAX_TRIES = 8
"""Keys that are tried for a token that names none."""


class Algorithm(StrEnum):
    """Signatures that can be checked with a public key. None that needs a shared secret, and not `none`."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


DEFAULT_ALGORITHMS = (
    Algorithm.RS256,
    Algorithm.PS256,
    Algorithm.ES256,
    Algorithm.ES384,
    Algorithm.EDDSA,
)

_KEYS: dict[str, tuple[str, str]] = {
    **{name: ("RSA", "") for name in Algorithm if name.startswith(("RS", "PS"))},
    Algorithm.ES256: ("EC", "P-256"),
    Algorithm.ES384: ("EC", "P-384"),
    Algorithm.ES512: ("EC", "P-521"),
    Algorithm.EDDSA: ("OKP", "Ed25519"),
}
"""The only type and curve of key that an algorithm takes."""
_PUBLIC = frozenset({"kty", "n", "e", "crv", "x", "y"})
_VERIFIERS: Mapping[str, Verifier] = get_default_algorithms()


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. `algorithm` is the only one that it's for, empty where its owner doesn't say."""

    id: str | None
    kind: tuple[str, str]
    algorithm: str
    public: Any

    def fits(self, algorithm: str) -> bool:
        return self.algorithm in ("", algorithm) and _KEYS.get(algorithm) == self.kind

    def signed(self, token: Unverified) -> bool:
        """Whether it signed `token`, whose algorithm it fits."""
        return _VERIFIERS[token.algorithm].verify(token.signed, self.public, token.signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """What an issuer signs with at one time. `skipped` counts keys that are of no use here."""

    keys: tuple[Key, ...]
    skipped: int = 0

    def named(self, key_id: str | None) -> tuple[Key, ...]:
        """The keys of that id; those that may be meant where a token names none."""
        return self.keys if key_id is None else tuple(key for key in self.keys if key.id == key_id)

    def candidates(self, token: Unverified) -> tuple[Key, ...]:
        """Those of its id that fit its algorithm."""
        fitting = (key for key in self.named(token.key_id) if key.fits(token.algorithm))
        return tuple(fitting)[:_MAX_TRIES]


def read_key_set(raw: bytes) -> KeySet:
    """The keys of a JWK set's JSON that can check signatures. Raises ValueError for what is no such set."""
    try:
        document = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    entries = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('is no JWK set: it must be {"keys": [...]}')  # noqa: TRY004 (one kind for its readers)
    entries = cast("list[object]", entries)
    if len(entries) > MAX_KEYS:
        raise ValueError(f"holds more than {MAX_KEYS} keys")
    keys = tuple(key for key in map(_key, entries) if key is not None)
    return KeySet(keys, len(entries) - len(keys))


def read_key_file(path: Path) -> KeySet:
    """Raises OSError, or ValueError for what is no key set."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"is over {MAX_BYTES // 1024} KiB")
    return read_key_set(raw)


def _key(entry: object) -> Key | None:
    """None for what can't check signatures, or shouldn't: private, secret, weak and other-purpose keys."""
    if not isinstance(entry, dict):
        return None
    jwk = cast("dict[str, Any]", entry)
    id_, algorithm = jwk.get("kid"), jwk.get("alg", "")
    kind = (jwk.get("kty"), jwk.get("crv", ""))
    name = next((name for name, takes in _KEYS.items() if takes == kind), None)
    meant = (
        isinstance(id_, str | None)
        and isinstance(algorithm, str)
        and (not algorithm or _KEYS.get(algorithm) == kind)
        and jwk.get("use", "sig") in ("sig", "jwt-svid")  # SPIFFE's bundles say jwt-svid, beside x509-svid
        and "d" not in jwk
    )
    if name is None or not meant:
        return None
    try:
        public = _VERIFIERS[name].from_jwk({k: v for k, v in jwk.items() if k in _PUBLIC})
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if isinstance(public, RSAPublicKey) and not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        return None
    return Key(id_, _KEYS[name], algorithm, public)
