"""Anthropic Messages, a call's arguments as the JSON object that `tool_use.input` has to be."""

from __future__ import annotations

import msgspec

_value = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def input_object(arguments: str, *, custom: bool = False) -> bytes:
    """A JSON object: the arguments' own text where they are one, `{}` where they are empty.

    Any other JSON value, text that is no JSON (cut arguments too) and a freeform tool's text stand in it as
    `input`: `{"input": …}`.
    """
    if custom:
        return _within(_encode(arguments))
    text = arguments.strip()
    if not text:
        return b"{}"
    try:
        _value(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _within(_encode(arguments))
    return text.encode() if text.startswith("{") else _within(text.encode())


def _within(value: bytes) -> bytes:
    return b'{"input":' + value + b"}"
