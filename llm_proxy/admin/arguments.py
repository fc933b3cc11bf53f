"""Arguments of a tool call for a person's eyes: laid out, and with nothing in them that hides or moves."""

from __future__ import annotations

import re

import msgspec

_ESCAPED = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)"
)
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""What Python calls printable and nobody sees."""
_LOOKS_ALIKE = "Holds characters beyond ASCII: look closely at names, addresses and links."


def readable(arguments: str) -> str:
    """The exact text over several lines: what can be seen without its escapes, what can't be seen as escapes.

    It is still JSON of the same meaning. Numbers and the order of keys stay as they are written.
    """
    try:
        text = msgspec.json.format(arguments, indent=2)
    except (msgspec.DecodeError, RecursionError):
        text = arguments
    return visible(_ESCAPED.sub(_unescaped, text))


def visible(text: str) -> str:
    """`text` with escapes in place of what doesn't print; line ends stay."""
    return "".join(char if char == "\n" or _seen(char) else _escaped(char) for char in text)


def caution(arguments: str) -> str:
    """What whoever reads them should mind; empty where there is nothing."""
    return "" if readable(arguments).isascii() else _LOOKS_ALIKE


def _unescaped(match: re.Match[str]) -> str:
    """An escape as the character that it stands for, where that is seen and needs none."""
    high, low, single = match.groups()
    if single is not None:
        char = chr(int(single, 16))
    elif high is not None:
        char = bytes.fromhex(high + low).decode("utf-16-be")
    else:
        return match[0]
    return char if _seen(char) and char not in '"\\' else match[0]


def _seen(char: str) -> bool:
    return char.isprintable() and not _BLANK.match(char)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
