"""Signatures and sealed reasoning: the same for the same text, and only this vendor's own are taken back."""

from __future__ import annotations

import base64
import binascii
import hmac
from enum import Enum
from hashlib import sha256

_KEY = b"the scripted vendor's key"
_DIGEST = 32


class Seal(Enum):
    """Each is known by how its bytes begin, as the vendors' are: `EqoB…`, `EmwK…`, `gAAAAA…`."""

    SIGNATURE = b"\x12\xaa\x01"
    REDACTED = b"\x12\x6c\x0a"
    ENCRYPTED = b"\x80\x00\x00\x00\x00\x00"


def sealed(seal: Seal, text: str) -> str:
    """Opaque data that stands for the text; nobody can make it without the key."""
    digest = sha256(text.encode()).digest()
    return base64.b64encode(seal.value + digest + _mac(seal, digest), _alphabet(seal)).decode()


def is_ours(seal: Seal, data: str) -> bool:
    """Whether `sealed` made this, for any text."""
    return _opened(seal, data) is not None


def is_signed(text: str, signature: str) -> bool:
    """Whether the signature is ours for this text; words that were left out (`""`) fit every one of ours."""
    digest = _opened(Seal.SIGNATURE, signature)
    return digest is not None and (not text or digest == sha256(text.encode()).digest())


def _opened(seal: Seal, data: str) -> bytes | None:
    try:
        raw = base64.b64decode(data.encode(), _alphabet(seal), validate=True)
    except (binascii.Error, ValueError):
        return None
    start = len(seal.value)
    digest, mac = raw[start : start + _DIGEST], raw[start + _DIGEST :]
    ours = raw.startswith(seal.value) and hmac.compare_digest(mac, _mac(seal, digest))
    return digest if ours else None


def _alphabet(seal: Seal) -> bytes:
    """Anthropic's seals are plain base64, OpenAI's are safe in addresses."""
    return b"-_" if seal is Seal.ENCRYPTED else b"+/"


def _mac(seal: Seal, digest: bytes) -> bytes:
    return hmac.digest(_KEY, seal.value + digest, "sha256")
