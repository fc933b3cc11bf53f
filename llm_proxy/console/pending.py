"""A sign-in that waits for the provider's word: all of it follows from a secret in the browser's cookie."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

LASTS_US = 600_000_000
_COOKIE = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,16})\.([A-Za-z0-9_-]{0,4000})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pending:
    """State, nonce and PKCE verifier can't be told from one another, and change with any part of it.

    So a browser that makes up a cookie of its own has begun a sign-in of its own: nothing of another's fits.
    """

    secret: str = field(repr=False)
    begun_us: int
    to: str
    """The page that is gone on to, as the browser says: it's checked where it's used."""

    @classmethod
    def begun(cls, to: str, now_us: int) -> Pending:
        return cls(secrets.token_urlsafe(32), now_us, to)

    @classmethod
    def read(cls, cookie: str, now_us: int) -> Pending | None:
        """None for what is no cookie of this kind, or is over."""
        found = _COOKIE.fullmatch(cookie)
        if found is None or not 0 <= now_us - int(found[2]) < LASTS_US:
            return None
        try:
            to = urlsafe_b64decode(found[3] + "=" * (-len(found[3]) % 4)).decode("ascii")
        except (binascii.Error, ValueError):
            return None
        return cls(found[1], int(found[2]), to)

    @property
    def cookie(self) -> str:
        return f"{self.secret}.{self.begun_us}.{_text(self.to.encode())}"

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """S256 of RFC 7636."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())

    @property
    def until_us(self) -> int:
        return self.begun_us + LASTS_US

    def began(self, state: str) -> bool:
        """Whether `state` is that of this sign-in; in constant time."""
        return hmac.compare_digest(self.state.encode(), state.encode("utf-8", "replace"))

    def _derived(self, what: str) -> str:
        """43 characters."""
        told = f"{what}\n{self.begun_us}\n{self.to}"
        return _text(hmac.digest(self.secret.encode(), told.encode(), "sha256"))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
