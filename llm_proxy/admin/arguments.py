"""Arguments of a tool call for a person's eyes: laid out, and with nothing in them that hides or moves."""

from __future__ import annotations

import re
import unicodedata

import msgspec

_ESCAPED = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)"
)
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e\n]+")
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
    return _BEYOND_ASCII.sub(_made_visible, text)


def said(text: str) -> str:
    """As `visible`, for long texts that nobody decides by: tabs, blanks that don't break, line ends of two
    characters and what makes an emoji of a symbol stay, since code and prose are full of them."""
    return _BEYOND_ASCII.sub(_made_said, text)


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


def _made_visible(match: re.Match[str]) -> str:
    text = match[0]
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(char if _seen(char) else _escaped(char) for char in text)


def _made_said(match: re.Match[str]) -> str:
    text, (begin, end) = match[0], match.span()
    if text.isprintable() and not _BLANK.search(text):
        return text
    before, after = match.string[begin - 1 : begin] or " ", match.string[end : end + 1] or " "
    around = zip(before + text, text, text[1:] + after, strict=False)
    return "".join(c if _seen(c) or _usual(b, c, a) else _escaped(c) for b, c, a in around)


def _seen(char: str) -> bool:
    return char.isprintable() and not _BLANK.match(char)


def _usual(before: str, char: str, after: str) -> bool:
    match char:
        case "\n" | "\t" | "\xa0":
            return True
        case "\r":
            return after == "\n"
        case "\ufe0f":
            return unicodedata.category(before) == "So"
        case _:
            return False


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
