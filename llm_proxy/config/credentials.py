"""Secrets in the config: text or `file:PATH`, kept as digests where comparing is enough, never shown."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, SecretStr, ValidationInfo

from llm_proxy.config.places import place_of
from llm_proxy.identity.keyring import hash_key

SHORT_CHARS = 16
"""A key shorter than this can be guessed."""
_MASK = "**********"
_SHA256 = re.compile(r"sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """A credential that callers present: only its SHA-256 (lower-case hex) is kept, and no repr shows it."""

    sha256: str = field(repr=False)
    short: bool = field(default=False, repr=False, compare=False)
    """True where the key is known to have fewer than SHORT_CHARS characters."""

    @classmethod
    def of(cls, key: str) -> KeyDigest:
        return cls(hash_key(key), len(key) < SHORT_CHARS)

    def matches(self, presented: str) -> bool:
        """Whether `presented` is the key; in constant time."""
        return hmac.compare_digest(self.sha256, hash_key(presented))


def read_secret(value: object, info: ValidationInfo) -> str | None:
    """The secret that `value` is or names; None where it is empty. Raises ValueError without any of it.

    The file of a `file:PATH` is relative to the config file; the newline at its end is no part of the secret.
    """
    if value is None or isinstance(value, SecretStr):
        return value.get_secret_value() if value else None
    if not isinstance(value, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 (pydantic reports ValueError)
    if not value.startswith("file:"):
        return value or None
    path = place_of(value.removeprefix("file:"), info)
    text = _read(path)
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ValueError(f"names the file {path}, which is empty: write the secret into it")
    return secret


def _present(value: object, info: ValidationInfo) -> str:
    secret = read_secret(value, info)
    if secret is None:
        raise ValueError("is empty: give the key or file:PATH, or leave the entry out")
    return secret


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"names the file {path}, which is not UTF-8 text") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ValueError(f"names the file {path}, which can't be read: {why}") from error


def _optional_digest(value: object, info: ValidationInfo) -> KeyDigest | None:
    if isinstance(value, KeyDigest):
        return value
    secret = read_secret(value, info)
    if secret is None:
        return None
    if not secret.startswith("sha256:"):
        return KeyDigest.of(secret)
    digest = _SHA256.fullmatch(secret)
    if digest is None:
        raise ValueError("must be sha256: and 64 hex digits, the SHA-256 of the key, or the key itself")
    return KeyDigest(digest[1].lower())


def _digest(value: object, info: ValidationInfo) -> KeyDigest:
    digest = _optional_digest(value, info)
    if digest is None:
        raise ValueError("is empty: give the key, sha256:<hex> or file:PATH")
    return digest


_Masked = PlainSerializer(lambda _: _MASK, return_type=str)

Secret = Annotated[SecretStr | None, BeforeValidator(read_secret)]
"""A secret that is sent on, such as an upstream's API key. Empty text is the same as absent."""

ApiKey = Annotated[SecretStr, BeforeValidator(_present)]
"""A secret that is sent on and can't be absent."""

Key = Annotated[KeyDigest, PlainValidator(_digest), _Masked]
"""A credential that is presented to the proxy."""

OptionalKey = Annotated[
    KeyDigest | None,
    PlainValidator(_optional_digest),
    PlainSerializer(lambda digest: digest and _MASK, return_type=str | None),
]
"""The same, where empty text is the same as absent."""
