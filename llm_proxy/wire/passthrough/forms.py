"""Small fields of a multipart form, found without copying the files beside them.

RFC 7578 and 2046, strictly: what parsers are known to read in different ways is refused, so that the field
read here is the one that the upstream reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from llm_proxy.wire.faults import invalid
from llm_proxy.wire.spans import Span

MAX_PARTS = 1_000
_MAX_HEAD = 8_192
_MAX_VALUE = 1_024

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf';[ \t]*{_WORD}=(?:"[^"\\\r\n\0]*"|[^\s;",\\]+)[ \t]*'
_parameters = re.compile(rf';[ \t]*({_WORD})=(?:"([^"]*)"|([^\s;]+))')
_form_data = re.compile(rf"form-data[ \t]*((?:{_PARAMETER})*);?[ \t]*", re.IGNORECASE)
_multipart = re.compile(rf"[ \t]*multipart/form-data[ \t]*((?:{_PARAMETER})*);?[ \t]*", re.IGNORECASE)
_header = re.compile(rf"({_WORD}):[ \t]*([^\r\n\0]*)")
_charset = re.compile(r"charset[ \t]*=([^;]*)", re.IGNORECASE)
_boundary = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PLAIN_ENCODINGS = ("7bit", "8bit", "binary")
_PLAIN_CHARSETS = ("utf-8", "UTF-8", "us-ascii", "US-ASCII")


def find_fields(content_type: str, body: bytes, wanted: Collection[str]) -> dict[str, Span]:
    """Where the values of the `wanted` fields stand in a `multipart/form-data` body, of those it has.

    Every other part is passed over, whatever its size. Raises `ProxyError` (invalid_request) where the form
    is malformed, has more than 1,000 parts, or has a wanted field twice, as a file or encoded.
    """
    delimiter = b"--" + boundary_of(content_type)
    if not body.startswith(delimiter):
        raise invalid("The form does not begin with its boundary: send nothing before the first part")
    found: dict[str, Span] = {}
    position = len(delimiter)
    for _ in range(MAX_PARTS + 1):
        if body.startswith(b"--", position):
            if len(body) > position + 4 or body[position + 2 :] not in (b"", b"\r\n"):
                raise invalid("Something follows the form's last boundary: send nothing behind it")
            return found
        start = _value_start(body, position)
        head = body[position + 2 : start - 4]
        end = body.find(delimiter, position) - 2
        if end < start or body[end : end + 2] != b"\r\n":
            raise invalid("The form's parts do not end where they should: send each before CRLF and boundary")
        name = _field_name(head, wanted)
        if name:
            if name in found:
                raise invalid(f"The form has the field {name} twice: send it once", name)
            found[name] = (start, end)
        position = end + 2 + len(delimiter)
    raise invalid(f"The form has more than {MAX_PARTS} parts: send fewer")


def field_text(name: str, body: bytes, at: Span) -> str:
    """The text of a field. Raises `ProxyError` where it is long, not UTF-8, or holds control characters."""
    start, end = at
    if end - start > _MAX_VALUE:
        raise invalid(f"The form's field {name} is {end - start} bytes long: send at most {_MAX_VALUE}", name)
    try:
        text = body[start:end].decode()
    except UnicodeDecodeError as error:
        raise invalid(f"The form's field {name} is not UTF-8: send it in UTF-8", name) from error
    if not text.isprintable():
        raise invalid(f"The form's field {name} holds control characters: send it without", name)
    return text


def boundary_of(content_type: str) -> bytes:
    """The boundary that a `multipart/form-data` content type names. Raises `ProxyError`."""
    match = _multipart.fullmatch(content_type)
    found = _named(match[1]) if match else None
    boundary = found.get("boundary", "") if found else ""
    if _boundary.fullmatch(boundary) is None:
        raise invalid(
            "The content type names no boundary that can be read: send multipart/form-data with one"
        )
    return boundary.encode()


def _value_start(body: bytes, position: int) -> int:
    """Where the value of the part begins whose boundary ends at `position`."""
    if not body.startswith(b"\r\n", position):
        raise invalid("The form's boundary occurs inside a part, or stands on no line of its own")
    blank = body.find(b"\r\n\r\n", position, position + _MAX_HEAD)
    if blank < 0:
        raise invalid(f"A part's headers have no end within {_MAX_HEAD} bytes: send a blank line behind them")
    return blank + 4


def _field_name(head: bytes, wanted: Collection[str]) -> str:
    """The name of a part where it is a wanted one; empty for any other."""
    headers = _headers(head)
    match = _form_data.fullmatch(headers.get("content-disposition", ""))
    named = _named(match[1]) if match else None
    if named is None or "name" not in named or "name*" in named:
        raise invalid("A part's Content-Disposition can't be read: send form-data with one quoted name")
    name = named["name"]
    if name not in wanted:
        return ""
    if "filename" in named or "filename*" in named:
        raise invalid(f"The form's field {name} is a file: send it as text", name)
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in _PLAIN_ENCODINGS:
        raise invalid(f"The form's field {name} is encoded for transfer: send it as it is", name)
    if any(c.strip(' "\t') not in _PLAIN_CHARSETS for c in _charset.findall(headers.get("content-type", ""))):
        raise invalid(f"The form's field {name} is in another character set: send it in UTF-8", name)
    return name


def _headers(head: bytes) -> dict[str, str]:
    """A part's headers by lower-case name, folded lines and repetitions refused."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        match = _header.fullmatch(line)
        if match is None or match[1].lower() in headers:
            raise invalid("A part's headers can't be read: send each once, on one line")
        headers[match[1].lower()] = match[2]
    return headers


def _named(parameters: str) -> dict[str, str] | None:
    """Parameters by lower-case name; None where one occurs twice."""
    pairs = [(name.lower(), quoted or plain) for name, quoted, plain in _parameters.findall(parameters)]
    named = dict(pairs)
    return named if len(named) == len(pairs) else None
