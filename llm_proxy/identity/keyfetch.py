"""Where an issuer's key set is read from: an address, or a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_proxy.identity.fetching import Unreadable, ask
from llm_proxy.identity.jwks import KeySet, read_key_file, read_key_set

DEFAULT_FRESH_S, LEAST_FRESH_S, MOST_FRESH_S = 300.0, 60.0, 3600.0
"""How long a set counts as fresh: what its `Cache-Control: max-age` says, within these bounds."""
FILE_FRESH_S = 1.0

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_NO_CACHE = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A key set as it is now, to be looked at again after `fresh_s`."""

    keys: KeySet
    fresh_s: float


@dataclass(frozen=True, slots=True)
class AddressSource:
    """A JWKS endpoint. `ca` is a PEM file to check its certificate by; `token` a file with a bearer token.

    Both are read each time, since clusters replace them. No redirect is followed: what is fetched, and where
    the token goes, is what the config says.
    """

    url: str
    ca: Path | None = None
    token: Path | None = None
    spacing_s = 10.0
    """The least time between two looks that callers' tokens can bring about."""

    async def fetch(self) -> Fetched:
        """Raises `Unreadable`."""
        headers = {} if self.token is None else await asyncio.to_thread(_bearer, self.token)
        heard = await ask(self.url, headers, ca=self.ca)
        try:
            keys = await asyncio.to_thread(read_key_set, heard.good())
        except ValueError as error:
            raise Unreadable(str(error)) from None
        return Fetched(keys, fresh_for(heard.headers))


@dataclass(slots=True)
class FileSource:
    """A key set in a file, which something else keeps up to date."""

    path: Path
    spacing_s = 1.0
    _stamp: tuple[int, int, int] | None = None
    _last: KeySet | None = None

    async def fetch(self) -> Fetched:
        """Raises `Unreadable`."""
        return Fetched(await asyncio.to_thread(self._read), FILE_FRESH_S)

    def _read(self) -> KeySet:
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._last is None or stamp != self._stamp:
                self._last, self._stamp = read_key_file(self.path), stamp
            return self._last
        except OSError as error:
            raise Unreadable(f"can't be read: {error.strerror or type(error).__name__}") from None
        except ValueError as error:
            raise Unreadable(str(error)) from None


Source = AddressSource | FileSource


def _bearer(file: Path) -> dict[str, str]:
    """The header with the token that `file` holds. Raises `Unreadable`."""
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Unreadable(f"can't be reached: {type(error).__name__} at the file of jwks_token") from None
    if not token.isascii() or not token.isprintable() or not token:
        raise Unreadable("can't be asked: the file of jwks_token holds no token")
    return {"authorization": f"Bearer {token}"}


def fresh_for(headers: Mapping[str, str]) -> float:
    """Seconds, from the reply's headers by lower-case name."""
    control, age = headers.get("cache-control", ""), headers.get("age", "")
    told = _MAX_AGE.search(control)
    if _NO_CACHE.search(control):
        return LEAST_FRESH_S
    if told is None:
        return DEFAULT_FRESH_S
    spent = int(age) if age.isdecimal() and len(age) < 10 else 0
    return min(max(float(told[1]) - spent, LEAST_FRESH_S), MOST_FRESH_S)
