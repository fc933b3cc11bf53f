"""An OpenID provider for tests, on a real socket: it checks what a client sends, and can be made to lie."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from aiohttp import web

from tests.issuers import claims, signing_key, token

CLIENT_ID = "llm-proxy console"
SECRET = "a secret: of the client+%"
KEY = signing_key("provider-1")


def _signed(told: dict[str, Any]) -> str:
    return token(KEY, told)


@dataclass
class Provider:
    """`person` holds the claims of who signs in. What isn't told of a code is in `codes`, by code."""

    client_secret: str | None = SECRET
    asks: bool = False
    """A page of its own comes first."""
    person: dict[str, Any] = field(default_factory=dict[str, Any])
    beside: dict[str, Any] = field(default_factory=dict[str, Any])
    """What only the userinfo endpoint tells."""
    says: dict[str, Any] = field(default_factory=dict[str, Any])
    """Replaces claims of the ID token; None leaves one out."""
    sign: Callable[[dict[str, Any]], str] = _signed
    document: dict[str, Any] = field(default_factory=dict[str, Any])
    """Replaces members of the discovery document."""
    status: int = 200
    """Of the discovery document."""
    origin: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    asked: list[str] = field(default_factory=list[str])
    """Every path that was asked for."""

    def reset(self) -> None:
        self.person = {"sub": "u-1", "email": "dana@example.com", "email_verified": True}
        self.beside, self.says, self.document = {}, {}, {}
        self.status, self.sign = 200, _signed

    @property
    def config(self) -> dict[str, Any]:
        secret = {} if self.client_secret is None else {"client_secret": self.client_secret}
        return {"issuer": self.origin, "client_id": CLIENT_ID, "name": "Acme SSO"} | secret

    async def discover(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        told = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "jwks_uri": f"{self.origin}/keys",
            "userinfo_endpoint": f"{self.origin}/userinfo",
        } | self.document
        return web.json_response(told, status=self.status)

    async def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split(" ")
        if self.asks and request.method == "GET":
            form = f'<form method="post" action="{escape(str(request.rel_url))}">'
            page = f"<title>Acme</title><link rel=icon href=data:,>{form}<button>Continue</button></form>"
            return web.Response(text=page, content_type="text/html")
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        told = {"code": code, "state": asked["state"], "iss": self.origin}
        raise web.HTTPSeeOther(f"{asked['redirect_uri']}?{urlencode(told)}")

    async def exchange(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        form = dict(parse_qsl(await request.text()))
        asked = self.codes.pop(form["code"], None)
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        challenge = urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            form["grant_type"] != "authorization_code"
            or asked is None
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["code_challenge"] != challenge.decode()
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        own: dict[str, Any] = {"iss": self.origin, "aud": CLIENT_ID, "nonce": asked["nonce"]}
        told = claims(None, **(self.person | own | self.says))
        return web.json_response(
            {"id_token": self.sign(told), "access_token": "access-1", "token_type": "Bearer"}
        )

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == CLIENT_ID and "authorization" not in request.headers
        if self.document.get("token_endpoint_auth_methods_supported") == ["client_secret_post"]:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, self.client_secret)
        pair = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        name, _, secret = pair.partition(":")
        return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, self.client_secret)

    async def keys(self, _: web.Request) -> web.Response:
        return web.Response(body=json.dumps({"keys": [KEY.jwk]}).encode())

    async def userinfo(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        assert request.headers["authorization"] == "Bearer access-1"
        return web.json_response({"sub": self.person["sub"]} | self.beside)


@contextlib.asynccontextmanager
async def providing(host: str = "127.0.0.1", **more: Any) -> AsyncGenerator[Provider]:
    """A provider on a free port until the block ends, by the name `host` of this machine."""
    provider = Provider(**more)
    provider.reset()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.discover)
    app.router.add_get("/authorize", provider.authorize)
    app.router.add_post("/authorize", provider.authorize)
    app.router.add_post("/token", provider.exchange)
    app.router.add_get("/keys", provider.keys)
    app.router.add_get("/userinfo", provider.userinfo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.origin = f"http://{host}:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"
