"""One request to an issuer: bounded in time and size, no redirect followed, nothing kept between two."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from llm_proxy.identity.jwks import MAX_BYTES

TIMEOUT_S = 5.0
"""For the whole of one look at an address."""


class Unreadable(Exception):
    """What an issuer should give and can't be had. The text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, whatever its status; headers by lower-case name."""

    status: int
    raw: bytes
    headers: Mapping[str, str]

    def good(self) -> bytes:
        """What a 200 holds. Raises `Unreadable` for any other."""
        if self.status != 200:
            raise Unreadable(f"answers {self.status}")
        return self.raw


async def ask(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    ca: Path | None = None,
    form: Mapping[str, str] | None = None,
) -> Heard:
    """What `url` answers to a GET, or to a POST of `form`. Raises `Unreadable`.

    `ca` is a PEM file to check its certificate by, read each time since clusters replace them. No redirect is
    followed, so that secrets go, and keys come, only where they were meant to.
    """
    try:
        trust = None if ca is None else await asyncio.to_thread(_trusting, ca)
        return await _asked(url, {"accept": "application/json"} | dict(headers or {}), trust, form)
    except TimeoutError:
        raise Unreadable(f"gave no answer within {TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unreadable(f"can't be reached: {type(error).__name__}") from None
    except ValueError as error:
        raise Unreadable(str(error)) from None


async def _asked(
    url: str, headers: dict[str, str], trust: ssl.SSLContext | None, form: Mapping[str, str] | None
) -> Heard:
    sent = headers | {"accept-encoding": "identity"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as http,
        http.request(
            "GET" if form is None else "POST",
            url,
            headers=sent,
            data=form,
            allow_redirects=False,
            ssl=trust or True,
        ) as reply,
    ):
        if 300 <= reply.status < 400:
            raise ValueError("redirects: name the address that it leads to")
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("answers compressed, which it was not asked to")
        raw = bytearray()
        async for piece in reply.content.iter_any():
            raw += piece
            if len(raw) > MAX_BYTES:
                raise ValueError(f"is over {MAX_BYTES // 1024} KiB")
        return Heard(reply.status, bytes(raw), {name.lower(): value for name, value in reply.headers.items()})


def _trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))
