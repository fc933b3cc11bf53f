"""What a request's headers say of its run, its user and its tags. They narrow; they never widen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from llm_proxy.errors import Kind, ProxyError

Headers = Mapping[bytes, bytes]

_KEYS = (b"x-api-key", b"api-key", b"x-litellm-api-key")
_RUN = (
    b"x-run-id",
    b"x-session-id",
    b"x-litellm-session-id",
    b"x-litellm-trace-id",
    b"x-portkey-trace-id",
    b"helicone-session-id",
    b"x-claude-code-session-id",
)
_USER = (b"x-user-id", b"x-litellm-end-user-id", b"helicone-user-id")
_TAGS = (b"x-tags", b"x-litellm-tags")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PARENT = (b"x-parent-run-id",)
_RUN_TOKEN = b"x-run-token"
_METADATA = b"x-portkey-metadata"
_TIMEOUTS = ((b"x-request-timeout", 1.0), (b"x-litellm-timeout", 1.0), (b"x-portkey-request-timeout", 1e-3))
"""The caller's own deadline, and what its unit is in seconds."""
_HINTS = frozenset(
    {
        *_RUN,
        *_USER,
        *_TAGS,
        *_PARENT,
        _RUN_TOKEN,
        _METADATA,
        b"baggage",
        b"traceparent",
        *(name for name, _ in _TIMEOUTS),
    }
)
_METADATA_USER = "_user"
_object = msgspec.json.Decoder(dict[str, Any]).decode
_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
MAX_ID = 256
MAX_TAGS = 32


class Hints(msgspec.Struct, frozen=True):
    """Empty where a header doesn't stand."""

    run_id: str = ""
    parent_run_id: str = ""
    run_token: str = ""
    """A secret: the token of the run that this one begins below."""
    user_id: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    timeout_s: float | None = None
    """How long the caller will wait for the whole of its call."""


_NO_HINTS = Hints()


def credential(headers: Headers) -> str | None:
    """The key that was shown, or None where there is none or it's empty."""
    bearer = headers.get(b"authorization")
    if bearer is not None:
        scheme, _, token = bearer.strip().partition(b" ")
        if scheme.lower() == b"bearer" and (key := _text(token)):
            return key
    for name in _KEYS:
        if key := _text(headers.get(name, b"").removeprefix(b"Bearer ")):
            return key
    return None


def read_hints(headers: Headers) -> Hints:
    """Raises `ProxyError(invalid_request)` for an id that is too long or holds control characters."""
    if _HINTS.isdisjoint(headers):
        return _NO_HINTS
    baggage, metadata = _baggage(headers.get(b"baggage")), _metadata(headers.get(_METADATA))
    traceparent = headers.get(b"traceparent", b"").decode("latin-1").strip().lower()
    return Hints(
        run_id=_first(headers, _RUN) or checked_id(baggage.get("run.id", ""), "baggage run.id"),
        parent_run_id=_first(headers, _PARENT)
        or checked_id(baggage.get("parent.run.id", ""), "baggage parent.run.id"),
        run_token=_text(headers.get(_RUN_TOKEN, b"")),
        user_id=_first(headers, _USER) or metadata.get(_METADATA_USER, ""),
        tags=_tags(headers) or _metadata_tags(metadata),
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        timeout_s=_timeout(headers),
    )


def _timeout(headers: Headers) -> float | None:
    """Raises `ProxyError(invalid_request)` for what is no positive number."""
    for name, unit in _TIMEOUTS:
        value = headers.get(name)
        if value is None:
            continue
        seconds = float(value) * unit if _SECONDS.fullmatch(value.strip()) else 0.0
        if seconds <= 0:
            raise ProxyError(
                Kind.INVALID_REQUEST,
                f"The header {name.decode()} is no positive number of {'seconds' if unit == 1 else 'ms'}: "
                "send one, or leave it out.",
                param=name.decode(),
            )
        return seconds
    return None


def checked_id(value: str, source: str) -> str:
    """`value`, if it can stand as an id in records, headers and logs."""
    if len(value) > MAX_ID or not value.isprintable():
        raise ProxyError(
            Kind.INVALID_REQUEST,
            f"The id in {source} is over {MAX_ID} characters or holds characters that don't print. "
            "Send a shorter, printable one.",
            param=source,
            retryable=False,
        )
    return value


def _first(headers: Headers, names: tuple[bytes, ...]) -> str:
    for name in names:
        value = headers.get(name)
        if value:
            return checked_id(_text(value), name.decode())
    return ""


def _text(value: bytes) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _tags(headers: Headers) -> tuple[str, ...]:
    for name in _TAGS:
        value = headers.get(name)
        if value:
            tags = (checked_id(tag.strip(), name.decode()) for tag in _text(value).split(","))
            return tuple(dict.fromkeys(tag for tag in tags if tag))[:MAX_TAGS]
    return ()


def _metadata_tags(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Each pair as `key=value`. A comma would make two tags of one, and is escaped."""
    tags = [f"{key}={value}".replace(",", "%2C") for key, value in metadata.items() if key != _METADATA_USER]
    return tuple(checked_id(tag, _METADATA.decode()) for tag in tags[:MAX_TAGS])


def _metadata(value: bytes | None) -> dict[str, str]:
    """Portkey's header: a JSON object of texts, numbers and truths; others are left out.

    Raises `ProxyError(invalid_request)` for what is no object: spend would be summed up without its tags.
    """
    if not value:
        return {}
    try:
        found = _object(_text(value))
    except (msgspec.DecodeError, RecursionError):
        raise ProxyError(
            Kind.INVALID_REQUEST,
            'The header x-portkey-metadata is no JSON object: send one such as {"team": "growth"}, or leave '
            "it out.",
            param="x-portkey-metadata",
            retryable=False,
        ) from None
    named = {key: text if isinstance(text, str) else _said(text) for key, text in found.items()}
    return {key: checked_id(text, "x-portkey-metadata") for key, text in named.items() if text}


def _said(value: object) -> str:
    return msgspec.json.encode(value).decode() if isinstance(value, int | float) else ""


def _baggage(value: bytes | None) -> dict[str, str]:
    if not value:
        return {}
    entries = (entry.split(";")[0].partition("=") for entry in value.decode("latin-1").split(","))
    return {key.strip(): unquote(text.strip()) for key, eq, text in entries if eq}
