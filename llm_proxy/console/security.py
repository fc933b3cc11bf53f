"""What every page of the console is sent with, and where a form may come from."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from urllib.parse import urlsplit

from fastapi import Request

_EMPTY = b64encode(hashlib.sha256(b"").digest()).decode()
"""The plots' library puts an empty style element into the page and fills it by script."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{_EMPTY}'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


def is_secure(request: Request, public_url: str | None) -> bool:
    """Whether the browser came by TLS: to the proxy itself, or to what stands before it."""
    return request.url.scheme == "https" or (public_url or "").startswith("https:")


def from_here(request: Request) -> bool:
    """Whether a form was sent by a page of this origin. A browser says so in one of two headers."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    try:
        return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")
    except ValueError:  # an address of no host
        return False
