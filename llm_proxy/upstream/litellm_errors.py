"""What an exception that came out of litellm means. Pure; knows litellm's shapes and doesn't import it.

litellm wraps the vendor's error two or three times and gives the wrappers made-up responses, with a status of
500 where there was none. The innermost exception knows best, so chains are read from the inside.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from json import JSONDecodeError
from socket import gaierror
from time import time
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp.http_exceptions import ContentLengthError

from llm_proxy.upstream.litellm_shapes import error_body
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import FailureKind, classify_status, retry_after_from

_K = FailureKind
_UNREACHED: tuple[tuple[type[Exception], FailureKind, str], ...] = (
    (gaierror, _K.DNS, "the target's host name can't be resolved"),
    (ssl.SSLError, _K.TLS, "the TLS connection to the target failed"),
    (aiohttp.ClientConnectorDNSError, _K.DNS, "the target's host name can't be resolved"),
    (aiohttp.ClientSSLError, _K.TLS, "the TLS connection to the target failed"),
    (aiohttp.ConnectionTimeoutError, _K.CONNECT_TIMEOUT, "no connection within connect_s"),
    (aiohttp.ClientConnectorError, _K.CONNECT_REFUSED, "the target refused the connection"),
    (ConnectionRefusedError, _K.CONNECT_REFUSED, "the target refused the connection"),
    (ContentLengthError, _K.TRUNCATED, "the reply is shorter than the target announced"),
    (aiohttp.ClientPayloadError, _K.CUT, "the target closed the connection in mid-reply"),
    (aiohttp.ClientConnectionError, _K.CUT, "the target closed the connection before it answered"),
    (ConnectionError, _K.CUT, "the target closed the connection"),
    (JSONDecodeError, _K.MALFORMED, "the target's answer can't be parsed"),
)
_BY_NAME = {
    # httpx's, for the vendors' libraries that don't go over aiohttp.
    "ConnectTimeout": (_K.CONNECT_TIMEOUT, "no connection within connect_s"),
    "ConnectError": (_K.CONNECT_REFUSED, "the target can't be reached"),
    "ReadTimeout": (_K.GATEWAY_TIMEOUT, "the target didn't answer in time"),
    "ReadError": (_K.CUT, "the target closed the connection in mid-reply"),
    "RemoteProtocolError": (_K.CUT, "the target closed the connection in mid-reply"),
}
_LITELLM_SAYS = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_filter",
}
"""What litellm read from a vendor's text, as OpenAI's code for it."""
_PASSED_ON = frozenset({400, 413, 422})
_LONGEST = 4000


class _ErrorFields(msgspec.Struct):
    code: Any = None
    type: Any = None
    status: Any = None
    message: Any = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorFields | str | None = None
    message: Any = None


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


_read = msgspec.json.Decoder(_ErrorBody).decode


def failure(error: BaseException, secret: str, *, sent: bool = True) -> UpstreamFailure:
    """The one classification of whatever litellm raised. `secret` never stands in what is said of it.

    Where the request was not `sent`, litellm could make nothing of it: that is the caller's to mend.
    """
    chain = list(_chain(error))
    if answered := _answer(chain):
        return _refused(answered, chain, secret)
    for inner in chain:
        for kind_of_error, kind, detail in _UNREACHED:
            if isinstance(inner, kind_of_error):
                return UpstreamFailure(kind, detail)
        if named := _BY_NAME.get(type(inner).__name__):
            return UpstreamFailure(*named)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return _not_sent(status, chain, str(error), secret)
    if not sent:
        return _not_sent(400, chain, str(error), secret)
    return UpstreamFailure(
        FailureKind.MALFORMED, f"the target's answer can't be read ({type(error).__name__})"
    )


def _not_sent(status: int, chain: list[BaseException], text: str, secret: str) -> UpstreamFailure:
    """litellm's own refusal."""
    failed = _refused(_Answer(status, {}, text.encode()), chain, secret)
    failed.detail = "litellm can't send the request to the target"
    return failed


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it came from, the innermost first."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return reversed(found)


def _answer(chain: list[BaseException]) -> _Answer | None:
    """The vendor's own answer, where one came."""
    for error in chain:
        response = getattr(error, "response", None)
        body = getattr(response, "_content", None)  # the property raises where a stream wasn't read
        status = getattr(response, "status_code", None)
        real = bool(body) or type(error).__name__ == "HTTPStatusError"
        if isinstance(status, int) and status >= 300 and isinstance(body, bytes) and real:
            return _Answer(status, _headers(response), body)
    return None


def _headers(response: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in response.headers.items()}


def _refused(answer: _Answer, chain: list[BaseException], secret: str) -> UpstreamFailure:
    code, type_, message = _words(answer.body)
    said = [_LITELLM_SAYS[name] for error in chain if (name := type(error).__name__) in _LITELLM_SAYS]
    kind = classify_status(answer.status, code or (said[0] if said else ""), type_)
    body = None
    if answer.status in _PASSED_ON:
        message = (message or f"The target answered {answer.status}.")[:_LONGEST]
        body = error_body(message.replace(secret, "***") if secret else message, code or None)
    return UpstreamFailure(
        kind,
        f"the target answered {answer.status}",
        status=answer.status,
        retry_after_s=retry_after_from(answer.headers, time()),
        body=body,
    )


def _words(body: bytes) -> tuple[str, str, str]:
    """The vendor's code, type and message: OpenAI's, Anthropic's and Google's bodies, or plain text."""
    try:
        read = _read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", "", body.decode("utf-8", "replace").strip()
    error = read.error
    if isinstance(error, _ErrorFields):
        return _text(error.code), _text(error.type) or _text(error.status), _text(error.message)
    return "", "", error or _text(read.message)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
