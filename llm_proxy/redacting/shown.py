"""What stands in a value's place: a token, its last four characters, a mask, or nothing."""

from __future__ import annotations

import hashlib
import re

from llm_proxy.policy.vocabulary import Detector, Replacement

MASK = "[redacted]"
_TOKEN = re.compile(r"tok_[0-9a-f]{24}")
_LAST = 4
_LEAST = 8
"""Letters and digits that a value has at least where its last four are shown."""


def key_of(secret: bytes, policy: str) -> bytes:
    """The key of one policy's tokens and hashes, by the policy's id: its later versions give the same."""
    return hashlib.blake2b(policy.encode(), key=secret, digest_size=32, person=b"llm-proxy-redact").digest()


def shown(how: Replacement, value: str, kind: Detector | None, key: bytes) -> str:
    """What stands for `value`. A token is the same for the same value, however a number is grouped."""
    match how:
        case "token":
            return value if _TOKEN.fullmatch(value) else token(value, kind, key)
        case "last4":
            told = [char for char in value if char.isalnum()]
            return "****" + "".join(told[-_LAST:]) if len(told) >= _LEAST else MASK
        case "mask":
            return MASK
        case "remove":
            return ""


def token(value: str, kind: Detector | None, key: bytes) -> str:
    exact = value.encode("utf-8", "surrogatepass")
    if kind in ("card_number", "iban", "phone"):
        exact = "".join([char for char in value.upper() if char.isalnum()]).encode()
    elif kind == "email":
        exact = value.casefold().encode()
    return "tok_" + hashlib.blake2b(exact, key=key, digest_size=12, person=b"token").hexdigest()
