"""What a person does to sign in by OIDC, and ID tokens that nobody should believe."""

from __future__ import annotations

import hmac
import json
from typing import Any

import aiohttp
from cryptography.hazmat.primitives import serialization

from llm_proxy.console.oidc import BEGIN
from tests.console.house import Browser, Seen
from tests.issuers import b64, token
from tests.oidc_provider import KEY, path_of


async def begun(browser: Browser, to: str = "") -> str:
    """Where the provider is asked; the browser has the cookie then."""
    answer = await browser.get(f"{BEGIN}?to={to}")
    assert answer.status == 303, answer.text
    return answer.headers["location"]


async def allowed(address: str) -> str:
    """What the provider sends the person back to."""
    async with aiohttp.ClientSession() as http, http.get(address, allow_redirects=False) as reply:
        assert reply.status == 303, await reply.text()
        return path_of(reply.headers["location"])


async def signed_in(browser: Browser, to: str = "") -> Seen:
    return await browser.get(await allowed(await begun(browser, to)))


def unsigned(told: dict[str, Any]) -> str:
    return f"{b64(json.dumps({'alg': 'none'}).encode())}.{b64(json.dumps(told).encode())}."


def by_public_key(told: dict[str, Any]) -> str:
    """HS256, with what everybody knows as the shared secret."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = KEY.private.public_key().public_bytes(serialization.Encoding.PEM, form)
    header = {"alg": "HS256", "kid": KEY.id}
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(told).encode())}"
    return f"{signed}.{b64(hmac.digest(public, signed.encode(), 'sha256'))}"


def changed(told: dict[str, Any]) -> str:
    good = token(KEY, told).split(".")
    return ".".join(
        [good[0], b64(json.dumps(told | {"email": "investigator@example.com"}).encode()), good[2]]
    )
