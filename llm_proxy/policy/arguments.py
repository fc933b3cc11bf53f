"""Reading the argument text of a tool call so strictly that it has one reading only.

What two JSON readers could understand differently is refused: duplicate keys, NaN and infinities (also
`1e999`), lone surrogates, integers past 64 bits, anything but an object. So is what would cost too much, and
U+0000 in a string, at which the CEL library would stop reading.

An empty text counts as `{}`: OpenAI's models send it for a tool without parameters, and agent loops read it
so. Blanks do not.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import NoReturn, cast

from llm_proxy.policy.canonical import Json

MAX_ITEMS = 1000
"""Items of one list, or keys of one object."""

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class BadArgs:
    """Why a text was refused; quotes none of it."""

    why: str


class _Refused(Exception):
    pass


def parse_arguments(text: str, *, max_bytes: int, max_depth: int) -> dict[str, Json] | BadArgs:
    """The object that `text` says, or why it says none. Never raises; time is linear in the text."""
    if text == "":
        return {}
    try:
        _check_size(text, max_bytes, max_depth)
        value = cast("Json", _DECODER.decode(text))
        _check(value)
    except json.JSONDecodeError as error:
        return BadArgs(f"arguments are not valid JSON at character {error.pos}: {error.msg}")
    except _Refused as error:
        return BadArgs(str(error))
    return value if isinstance(value, dict) else BadArgs("arguments are not a JSON object")


def _check_size(text: str, max_bytes: int, max_depth: int) -> None:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise _Refused(f"arguments hold {size} bytes; the limit is {max_bytes}")
    if _too_deep(text, max_depth):
        raise _Refused(f"arguments are nested deeper than {max_depth} levels")


def _too_deep(text: str, limit: int) -> bool:
    """Whether brackets outside strings nest deeper than `limit`."""
    if text.count("{") + text.count("[") <= limit:
        return False
    depth = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > limit:
                return True
        elif first in "]}":
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused("arguments name a key twice")
    return value


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) <= _MAX_DIGITS:
        number = int(digits)
        if -(2**63) <= number < 2**63:
            return number
    raise _Refused("arguments hold an integer past 64 bits")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Refused("arguments hold a number too large for a double")
    return number


def _constant(name: str) -> NoReturn:
    raise _Refused(f"arguments hold {name}, which is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _check(value: Json) -> None:
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, (list, dict)):
        if len(value) > MAX_ITEMS:
            raise _Refused(f"arguments hold a list or object of more than {MAX_ITEMS} items")
        if isinstance(value, dict):
            for key in value:
                _check_string(key)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item)


def _check_string(value: str) -> None:
    if "\0" in value:
        raise _Refused("arguments hold the character U+0000")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("arguments hold half of a surrogate pair") from None
