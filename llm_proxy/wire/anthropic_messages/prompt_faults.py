"""Anthropic Messages, what is said of a request that can't be read or can't be carried over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from llm_proxy.errors import Kind, ProxyError

T = TypeVar("T")

_PATH = re.compile(r" - at `\$\.?(.*)`$")


def invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)


def unsupported(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.UNSUPPORTED_FEATURE, message, param=param, retryable=False)


def decoded(decode: Callable[[bytes | msgspec.Raw], T], raw: bytes | msgspec.Raw, where: str = "") -> T:
    """`raw` as the decoder's type. Raises `ProxyError` (invalid_request) naming the place below `where`."""
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        path = _PATH.search(text)
        place = ".".join([part for part in (where, path[1] if path else "") if part]).replace(".[", "[")
        said = f"{place or 'The request body'} has the wrong shape: {_PATH.sub('', text)}"
        raise invalid(said, place or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"{where or 'The request body'} is not valid JSON: {error}", where or None) from error
    except RecursionError as error:
        said = f"{where or 'The request body'} is nested too deeply: send a flatter document"
        raise invalid(said, where or None) from error
