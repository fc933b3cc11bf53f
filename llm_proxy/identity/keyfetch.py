"""Where an issuer's key set is read from: an address, or a file."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from llm_proxy.identity.jwks import MAX_BYTES, KeySet, read_key_file, read_key_set

TIMEOUT_S = 5.0
"""For the whole of one look at an address."""
DEFAULT_FRESH_S, LEAST_FRESH_S, MOST_FRESH_S = 300.0, 60.0, 3600.0
"""How long a set counts as fresh: what its `Cache-Control: max-age` says, within these bounds."""
FILE_FRESH_S = 1.0

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_NO_CACHE = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


class Unreadable(Exception):
    """A key set that can't be had. The text says why, in a few words."""


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
        try:
            trust, headers = await asyncio.to_thread(self._prepared)
            raw, told = await self._get(trust, headers)
            keys = await asyncio.to_thread(read_key_set, raw)
        except TimeoutError:
            raise Unreadable(f"gave no answer within {TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreadable(f"can't be reached: {type(error).__name__}") from None
        except ValueError as error:
            raise Unreadable(str(error)) from None
        return Fetched(keys, fresh_for(told))

    async def _get(
        self, trust: ssl.SSLContext | None, headers: dict[str, str]
    ) -> tuple[bytes, dict[str, str]]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as http,
            http.get(self.url, headers=headers, allow_redirects=False, ssl=trust or True) as reply,
        ):
            if 300 <= reply.status < 400:
                raise ValueError("redirects: name the address that it leads to")
            if reply.status != 200:
                raise ValueError(f"answers {reply.status}")
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise ValueError("answers compressed, which it was not asked to")
            raw = bytearray()
            async for piece in reply.content.iter_any():
                raw += piece
                if len(raw) > MAX_BYTES:
                    raise ValueError(f"is over {MAX_BYTES // 1024} KiB")
            return bytes(raw), {name.lower(): value for name, value in reply.headers.items()}

    def _prepared(self) -> tuple[ssl.SSLContext | None, dict[str, str]]:
        trust = None if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if self.token is not None:
            token = self.token.read_text("utf-8").strip()
            if not token.isascii() or not token.isprintable() or not token:
                raise ValueError("can't be asked: the file of jwks_token holds no token")
            headers["authorization"] = f"Bearer {token}"
        return trust, headers


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
