"""Issuers of tokens for tests: keys made here, a key set on a real socket, tokens good and forged."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://login.example.com"
AUDIENCE = "llm-proxy"
_ALGORITHMS = get_default_algorithms()


@dataclass(frozen=True)
class SigningKey:
    """A private key, what it signs with, and the public part as an issuer publishes it."""

    id: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        public = _ALGORITHMS[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {name: public[name] for name in public if name != "key_ops"} | {"kid": self.id, "use": "sig"}

    def signature(self, signed: bytes) -> bytes:
        return _ALGORITHMS[self.algorithm].sign(signed, self.private)


@cache
def signing_key(id_: str, algorithm: str = "RS256") -> SigningKey:
    """The same one each time it's asked for, since making an RSA key takes a while."""
    match algorithm:
        case "ES256":
            private: Any = ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            private = ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        case _:
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return SigningKey(id_, algorithm, private)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: str, payload: str, key: SigningKey) -> str:
    """A token of exactly these texts, signed by `key`."""
    signed = f"{b64(header.encode())}.{b64(payload.encode())}"
    return f"{signed}.{b64(key.signature(signed.encode()))}"


def claims(now_s: float | None = None, **more: Any) -> dict[str, Any]:
    """Good for an hour; a claim given as None is left out."""
    now = int(time.time() if now_s is None else now_s)
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bot", "iat": now, "exp": now + 3600} | more
    return {name: value for name, value in told.items() if value is not None}


def token(key: SigningKey, told: Mapping[str, Any] | None = None, **header: Any) -> str:
    """Signed by `key`; `header` replaces members of its header, and None leaves one out."""
    named = {"alg": key.algorithm, "typ": "JWT", "kid": key.id} | header
    named = {name: value for name, value in named.items() if value is not None}
    return compact(json.dumps(named), json.dumps(claims() if told is None else told), key)


@dataclass
class Jwks:
    """A key set endpoint. What it answers may be changed while it runs."""

    keys: list[SigningKey]
    origin: str = ""
    raw: bytes | None = None
    """In place of the keys."""
    status: int = 200
    wait_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """The headers of every request, in order."""
    at: list[float] = field(default_factory=list[float])
    """When each came, in seconds of the loop's clock."""

    @property
    def url(self) -> str:
        return f"{self.origin}/keys"

    def body(self) -> bytes:
        return json.dumps({"keys": [key.jwk for key in self.keys]}).encode() if self.raw is None else self.raw

    async def answer(self, request: web.Request) -> web.Response:
        self.at.append(asyncio.get_running_loop().time())
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        await asyncio.sleep(self.wait_s)
        return web.Response(body=self.body(), status=self.status, headers=self.headers)


def private_authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate (a PEM file) of an authority that nobody knows, and a server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.now(UTC), timedelta(days=1)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    public, private = folder / "ca.pem", folder / "server.pem"
    public.write_bytes(made.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    private.write_bytes(secret + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private)
    return public, context


@contextlib.asynccontextmanager
async def serving(*keys: SigningKey, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Jwks]:
    """A key set on a free port until the block ends."""
    jwks = Jwks(list(keys))
    app = web.Application()
    app.router.add_get("/keys", jwks.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        jwks.origin = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        yield jwks
    finally:
        await runner.cleanup()
