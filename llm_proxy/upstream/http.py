"""Model servers over aiohttp, whatever dialect they speak: bytes in, bytes out, every failure classified."""

from __future__ import annotations

import io
import ssl
import time
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.payload import BytesIOPayload
from yarl import URL

from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure
from routing.failures import FailureKind, classify_status, retry_after_from

_LARGE = 1 << 20
"""Bytes from which aiohttp wants a body in pieces, so that the loop isn't held while it's written."""
_ERROR_BODY = 65_536


class _ErrorFields(msgspec.Struct):
    code: Any = None
    type: Any = None
    message: Any = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorFields | str | None = None


_read_error = msgspec.json.Decoder(_ErrorBody).decode


class HttpReply:
    """A 2xx reply that is arriving."""

    __slots__ = ("_content", "content_type", "dropped", "headers", "status", "streamed")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.headers.get("content-type", "")
        self.status = response.status
        self.dropped: tuple[str, ...] = ()
        self.streamed = response.content_type == "text/event-stream"

    async def chunk(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(error) from error


class _Attempt:
    """One request: entering sends it; leaving gives the connection back, or closes it in mid-reply."""

    __slots__ = ("_request", "_response")

    def __init__(self, request: Awaitable[aiohttp.ClientResponse]) -> None:
        self._request = request
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> HttpReply:
        try:
            response = self._response = await self._request
        except (aiohttp.ClientError, OSError) as error:
            raise _unreached(error) from error
        if not 200 <= response.status < 300:
            try:
                raise await _refused(response)
            finally:
                response.close()
        return HttpReply(response)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response = self._response
        assert response is not None
        if response.content.at_eof():
            response.release()
        else:
            response.close()


class HttpProvider:
    """One connection pool for every target that is reached over HTTP."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=55),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept"),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    def open(self, endpoint: Endpoint, sending: Sending, connect_s: float) -> _Attempt:
        timeout = self._timeouts.get(connect_s)
        if timeout is None:
            timeout = self._timeouts[connect_s] = aiohttp.ClientTimeout(
                total=None,
                connect=connect_s,  # the look-up of the name included
                sock_connect=connect_s,
            )
        body = sending.body
        data = body if len(body) < _LARGE else BytesIOPayload(io.BytesIO(body))
        headers = {**endpoint.headers, **sending.headers} if sending.headers else endpoint.headers
        return _Attempt(
            self._session.request(
                sending.method,
                # A path that was checked goes as it is: nothing is quoted or resolved anew.
                URL(endpoint.url + sending.path, encoded=True),
                data=data or None,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            )
        )

    async def close(self) -> None:
        await self._session.close()


async def _refused(response: aiohttp.ClientResponse) -> UpstreamFailure:
    try:
        body = await _start(response.content)
    except (aiohttp.ClientError, OSError):
        body = b""
    code, type_ = _words(body)
    kind = classify_status(response.status, code, type_)
    return UpstreamFailure(
        kind,
        f"the target answered {response.status}",
        status=response.status,
        retry_after_s=retry_after_from(response.headers, time.time()),
        body=body,
        retry_same=response.headers.get("x-should-retry", "").lower() != "false",
    )


async def _start(content: aiohttp.StreamReader) -> bytes:
    """A body's first bytes, however many pieces it comes in: as many as are kept of an error."""
    pieces: list[bytes] = []
    left = _ERROR_BODY
    while left > 0 and (piece := await content.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _words(body: bytes) -> tuple[str, str]:
    """The vendor's error code and type, where the body has them."""
    try:
        error = _read_error(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    if not isinstance(error, _ErrorFields):
        return "", ""
    return str(error.code or ""), str(error.type or "")


def _unreached(error: Exception) -> UpstreamFailure:  # noqa: PLR0911  one answer for each kind of error
    """What went wrong before a status came."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UpstreamFailure(FailureKind.CONNECT_TIMEOUT, "no connection within connect_s")
        case aiohttp.ClientConnectorDNSError():
            return UpstreamFailure(FailureKind.DNS, "the target's host name can't be resolved")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return UpstreamFailure(FailureKind.TLS, "the TLS connection to the target failed")
        case aiohttp.ClientConnectorError():
            return UpstreamFailure(FailureKind.CONNECT_REFUSED, "the target refused the connection")
        case aiohttp.InvalidURL():
            return UpstreamFailure(FailureKind.DNS, "the target's address is not valid")
        case aiohttp.ClientResponseError():
            return UpstreamFailure(FailureKind.MALFORMED, "the target's answer is not HTTP")
        case _:
            return UpstreamFailure(FailureKind.CUT, "the target closed the connection before it answered")


def _broken(error: Exception) -> UpstreamFailure:
    """What went wrong in mid-reply."""
    if isinstance(error, aiohttp.ClientPayloadError) and not isinstance(
        error.__cause__, TransferEncodingError
    ):
        return UpstreamFailure(FailureKind.TRUNCATED, "the reply is shorter than the target announced")
    return UpstreamFailure(FailureKind.CUT, "the target closed the connection in mid-reply")
