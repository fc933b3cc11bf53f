"""Public keys with which an auditor checks checkpoints: as PEM, as a JWK, or as a JWK set."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from llm_proxy.signing import SigningKey
from llm_proxy.signing.key import thumbprint

_MOST_BYTES = 262_144


class BadKey(Exception):
    """A file that holds no public key; the message says what to do."""


class _Jwk(msgspec.Struct, frozen=True):
    kty: str
    crv: str = ""
    x: str = ""


class _Set(msgspec.Struct, frozen=True):
    keys: tuple[_Jwk, ...]


def public_keys(path: Path) -> dict[str, bytes]:
    """The Ed25519 keys in a file: their 32 public bytes, by id. Raises `BadKey`, and OSError.

    A file that holds the private half gives its public one.
    """
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES)
    try:
        keys = _from_pem(raw) if b"-----BEGIN" in raw else jwks(raw)
    except ValueError as error:
        raise BadKey(f"{path} holds no Ed25519 public key, as PEM, JWK or JWK set: {error}") from error
    if not keys:
        raise BadKey(f"{path} holds no Ed25519 key: give the `keys` of /.well-known/jwks.json, or a PEM.")
    return keys


def jwks(raw: bytes) -> dict[str, bytes]:
    """The Ed25519 keys of a JWK or a JWK set. Raises ValueError."""
    try:
        found = msgspec.json.decode(raw, type=_Set).keys if b'"keys"' in raw else None
        found = found if found is not None else (msgspec.json.decode(raw, type=_Jwk),)
        publics = [_bytes(key.x) for key in found if (key.kty, key.crv) == ("OKP", "Ed25519")]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as error:
        raise ValueError(str(error)) from error
    return {thumbprint(public): public for public in publics}


def _bytes(x: str) -> bytes:
    public = base64.b64decode(x + "=" * (-len(x) % 4), altchars=b"-_", validate=True)
    if len(public) != 32:
        raise ValueError("its x isn't 32 bytes")
    return public


def _from_pem(raw: bytes) -> dict[str, bytes]:
    if b"PRIVATE" in raw:
        key = SigningKey.read(raw)
        return {key.id: key.public}
    public = load_pem_public_key(raw)
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("it is a key of another kind")  # noqa: TRY004 (one kind for its readers)
    found = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {thumbprint(found): found}
