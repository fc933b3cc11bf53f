"""An Ed25519 key pair: what signs, its id, and its public half as a JWK (RFC 8037)."""

from __future__ import annotations

import base64
import hashlib

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

ALGORITHM = "EdDSA"


class SigningKey:
    """Signs with the private half, which it shows to nobody but `pem`."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """32 bytes."""
        self.id = thumbprint(self.public)
        """The RFC 7638 thumbprint of the public half: whoever has that can say which key it is."""

    @classmethod
    def new(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, pem: bytes) -> SigningKey:
        """Raises ValueError for anything but an Ed25519 key in PEM, without a password."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ValueError("holds no private key in PEM, or one under a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("holds a key of another kind than Ed25519")  # noqa: TRY004 (one kind for its readers)
        return cls(key)

    def pem(self) -> bytes:
        """The private half, as PKCS #8 in PEM."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(message)

    def jwk(self) -> dict[str, str]:
        """The public half, for a JWK set."""
        return {**_required(self.public), "kid": self.id, "alg": ALGORITHM, "use": "sig"}


def signed_by(public: bytes, signature: str, message: bytes) -> bool:
    """Whether the key with these 32 public bytes made the signature, in base64url without padding."""
    try:
        made = base64.urlsafe_b64decode(signature + "==")
        Ed25519PublicKey.from_public_bytes(public).verify(made, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def b64(raw: bytes) -> str:
    """base64url without padding, as JOSE writes it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _required(public: bytes) -> dict[str, str]:
    """The members that a thumbprint is of, in the order of their names."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64(public)}


def thumbprint(public: bytes) -> str:
    return b64(hashlib.sha256(msgspec.json.encode(_required(public))).digest())
