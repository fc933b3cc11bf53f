"""Canonical JSON by RFC 8785 (JCS), and the digest that names one exact action.

One departure: integers beyond ±2^53 keep all their digits, where RFC 8785 would round them to a double. Two
different 64-bit ids must never share a digest, and so a grant.
"""

from __future__ import annotations

import hashlib
import math
from json.encoder import encode_basestring  # escapes exactly what RFC 8785 section 3.2.2.2 does
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def canonical(value: Json) -> str:
    """The one spelling of `value`. Finite numbers and no lone surrogates are the caller's promise."""
    if isinstance(value, dict):
        keys = sorted(value, key=_utf16)
        return "{" + ",".join([f"{encode_basestring(key)}:{canonical(value[key])}" for key in keys]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([canonical(item) for item in value]) + "]"
    return _scalar(value)


def _scalar(value: float | str | None) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return encode_basestring(value)


def digest(tool: str, arguments: Json) -> str:
    """SHA-256 (hex) of the canonical `[tool, arguments]`."""
    return hashlib.sha256(canonical([tool, arguments]).encode("utf-8", "surrogatepass")).hexdigest()


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """ECMAScript's Number::toString, from the same shortest digits that Python's repr finds."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinities have no canonical form")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _place(digits, point)


def _place(digits: str, point: int) -> str:
    """Digits with the decimal point after the first `point` of them (ECMA-262, 6.1.6.1.20)."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
