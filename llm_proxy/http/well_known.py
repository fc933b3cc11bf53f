"""`GET /.well-known/jwks.json`: the public key that receipts are checked with. Anybody may have it."""

from __future__ import annotations

from llm_proxy.http.asgi import App, Receive, Scope, Send, respond
from llm_proxy.receipts.issue import Receipts

JWKS = "/.well-known/jwks.json"


def key_set(receipts: Receipts) -> App:
    """The endpoint. An answer may be kept for five minutes; the key changes only with a restart."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/jwk-set+json"), (b"cache-control", b"public, max-age=300")]
        await respond(send, 200, headers, receipts.key_set)

    return answer
