"""Anthropic Messages, a call's arguments as the JSON object that `tool_use.input` has to be."""

from __future__ import annotations

import msgspec

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
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
        _object(text)
    except msgspec.ValidationError:
        return _within(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return _within(_encode(arguments))
    return text.encode()


def _within(value: bytes) -> bytes:
    return b'{"input":' + value + b"}"
