"""What is said of a request that can't be read, or can't be carried over to another dialect."""

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


def placed(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec expected, and where: empty for the document as a whole."""
    text = str(error)
    path = _PATH.search(text)
    return (text[: path.start()], path[1]) if path else (text, "")


def decoded(decode: Callable[[bytes | msgspec.Raw], T], raw: bytes | msgspec.Raw, where: str = "") -> T:
    """What `raw` holds. Raises `ProxyError` (invalid_request) that names the place, from `where` on."""
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        expected, path = placed(error)
        place = ".".join([part for part in (where, path) if part]).replace(".[", "[")
        said = f"{place or 'The request body'} has the wrong shape: {expected}"
        raise invalid(said, place or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"{where or 'The request body'} is not valid JSON: {error}", where or None) from error
    except RecursionError as error:
        said = f"{where or 'The request body'} is nested too deeply: send a flatter document"
        raise invalid(said, where or None) from error
