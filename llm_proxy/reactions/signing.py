"""Signatures as Standard Webhooks 1.0 has them: HMAC-SHA256 over the id, the time and the body."""

from __future__ import annotations

import base64
import hmac


def signed_headers(secret: bytes, id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers of one delivery. `at_s` is when this try is made, in Unix seconds."""
    digest = hmac.digest(secret, b"%s.%d.%s" % (id_.encode(), at_s, body), "sha256")
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
