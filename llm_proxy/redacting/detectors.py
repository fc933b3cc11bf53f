"""Finds card numbers, bank accounts, addresses, phone numbers and secrets in text, in linear time.

Every pattern begins at a place that a look at one character settles, and repeats only what excludes its own
end, so that no input makes the search slow. What has a checksum counts only where it holds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from llm_proxy.policy.vocabulary import Detector
from llm_proxy.redacting.checksums import IBAN_LENGTHS, iban_holds, luhn_holds

Span = tuple[int, int]

_ESCAPE = r"(?<=\\[nrtbf])"
"""Behind a JSON escape, whose letter is none of the value's."""

_GAP = "[ .\\-\u00a0\u2009\u202f]"
_CARD = re.compile(
    rf"(?<![0-9])(?:[0-9]{{13,19}}(?![0-9])"
    rf"|[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{1,7}}(?![0-9])(?P<more>{_GAP}[0-9]{{1,3}}(?![0-9]))?"
    rf"|[0-9]{{4}}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}(?![0-9]))"
)
_IBAN_GAP = "[ \\-\u00a0\u2009\u202f]"


def _iban_pattern() -> str:
    by_length: dict[int, list[str]] = {}
    for country, length in IBAN_LENGTHS.items():
        by_length.setdefault(length, []).append(country)
    ways = [
        f"(?:{'|'.join(countries)}){_IBAN_GAP}?[0-9]{{2}}(?:{_IBAN_GAP}?[A-Z0-9]){{{length - 4}}}(?![A-Z0-9])"
        for length, countries in sorted(by_length.items())
    ]
    return f"(?:(?<![A-Za-z0-9])|{_ESCAPE})(?=[A-Za-z]{{2}}{_IBAN_GAP}?[0-9])(?i:{'|'.join(ways)})"


_IBAN = re.compile(_iban_pattern(), re.ASCII)
_LOCAL = r"[^\s@<>()\[\]{},;:\"'\\/|=]"
_EMAIL = re.compile(
    rf"(?:(?<!{_LOCAL})|{_ESCAPE}){_LOCAL}{{1,64}}+@(?:[^\W_][\w\-]{{0,62}}+\.){{1,10}}(?:xn--[a-zA-Z0-9\-]{{2,60}}+|[^\W\d_]{{2,24}}+)"
)
_PHONE = re.compile(
    rf"(?:(?<![\w+])|{_ESCAPE})\+[1-9](?:[ .\-()/\u00a0\u202f]{{0,2}}+[0-9]){{6,14}}+(?![\w])"
)
_BEGINS = rf"(?:(?<![A-Za-z0-9])|{_ESCAPE})"
_KEY = re.compile(
    _BEGINS
    + r"(?:(?:sk-|sk_live_|sk_test_|rk_live_|rk_test_|whsec_|gh[opusr]_|github_pat_|glpat-|npm_|hf_|pypi-"
    r"|dop_v1_)[A-Za-z0-9_\-]{20,}+"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"
    r"|xox[abceoprs]-[A-Za-z0-9\-]{10,}+"
    r"|AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-]))"
)
_SENDGRID = re.compile(_BEGINS + r"SG\.[A-Za-z0-9_\-]{16,}+\.[A-Za-z0-9_\-]{16,}+")
_TOKEN_START = re.compile(_BEGINS + r"eyJ[A-Za-z0-9_\-]{12}")
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_\-]{12,}+\.eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}+")
_RUN = 15
"""Letters, digits, `_` and `-` in a row that every key has, private ones apart."""
_LONG = b"a" * _RUN
_ROWS = bytes(97 if (chr(c).isalnum() and c < 128) or c in b"_-" else 32 for c in range(256))
"""Makes every such sign an `a` and all else a blank: a long run is then found by a plain search."""
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=\s:,.\-()]|\\++[nr/])*+")
_LEAST_ENTROPY = 2.5
"""Bits per character of a key; what is written for show (`sk-xxxxxxxx…`) has fewer."""

WINDOW: Mapping[Detector, int] = {
    "card_number": 32,
    "iban": 52,
    "email": 400,
    "phone": 48,
    "secret": 4096,
}
"""The most characters of a text that may belong to a value that has only begun."""
_LOOKS: Mapping[Detector, re.Pattern[str]] = {
    "card_number": re.compile(r"[0-9 .\-\u00a0\u2009\u202f]*\Z"),
    "iban": re.compile(r"[A-Za-z0-9 \-\u00a0\u2009\u202f]*\Z"),
    "email": re.compile(rf"(?:{_LOCAL}|@)*\Z"),
    "phone": re.compile(r"[0-9+ .\-()/\u00a0\u202f]*\Z"),
    "secret": re.compile(r"[A-Za-z0-9_\-.]*\Z"),
}


def find(kind: Detector, text: str) -> list[Span]:
    """Where the values of this kind stand in `text`, in order, none over another."""
    return list(_FINDERS[kind](text))


def holds_secret(data: bytes) -> bool:
    """Whether a secret stands in bytes of any kind as it is, or escaped as JSON can."""
    if data.find(b"\\u00") >= 0 and _ESCAPED.search(data):
        return True
    return next(_secrets(data.decode("latin-1")), None) is not None


def may_go_on(kind: Detector, text: str) -> int:
    """From where on `text` may belong to a value that what follows completes."""
    start = max(0, len(text) - WINDOW[kind])
    if kind == "secret" and (opened := _open_pem(text)) is not None:
        return opened
    found = _LOOKS[kind].search(text, start)
    at = found.start() if found else len(text)
    if kind == "secret" and (dashes := text.rfind("-----BEGIN", max(0, len(text) - 80))) >= 0:
        at = min(at, dashes)
    return at


def _open_pem(text: str) -> int | None:
    begins = list(_PEM_BEGIN.finditer(text)) if "PRIVATE KEY" in text else []
    if not begins or _PEM_END.search(text, begins[-1].end()):
        return None
    body = _PEM_BODY.match(text, begins[-1].end())
    return begins[-1].start() if body and len(text) - body.end() <= _DASHES else None


_ESCAPED = re.compile(rb"\\u00(?:2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")
"""Signs of keys that stand escaped, which no writer of JSON does without a cause."""
_DASHES = 80
_PEM_HEAD = 64


def _cards(text: str) -> Iterator[Span]:
    at = 0
    while match := _CARD.search(text, at):
        start, end = match.span()
        if luhn_holds(match[0]):
            yield start, end
            at = end
        elif (shorter := match.start("more")) >= 0 and luhn_holds(text[start:shorter]):
            yield start, shorter
            at = shorter
        else:
            at = start + 4


def _ibans(text: str) -> Iterator[Span]:
    at = 0
    while match := _IBAN.search(text, at):
        if iban_holds(match[0]):
            yield match.span()
            at = match.end()
        else:
            at = match.start() + 2


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            start, end = match.span()
            if start and text[start - 1] == "\\" and text[start] in "nrtbf":
                start += 1
            if text[start] != "@":
                yield start, end


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        yield match.span()


def _secrets(text: str) -> Iterator[Span]:
    found = [*_private_keys(text), *_keys(text)]
    found.sort()
    reached = 0
    for start, end in found:
        if start >= reached:
            yield start, end
            reached = end


def _keys(text: str) -> Iterator[Span]:
    """Keys of known form. Most text has few runs that are long enough, and each is looked at once."""
    rows = text.encode("ascii", "replace").translate(_ROWS)
    barren: set[str] = set()  # the frames of a stream repeat themselves
    end = 0
    while (at := rows.find(_LONG, end)) >= 0:
        start = rows.rfind(b" ", end, at) + 1 or end
        end = rows.find(b" ", at)
        end = end if end >= 0 else len(rows)
        dotted = text.startswith("SG.", start - 3)
        special = dotted or text[start - 1 : start] == "\\"
        run = text[start:end]
        if run in barren and not special:
            continue
        matches = list(_KEY.finditer(text, start, end))
        if dotted and (match := _SENDGRID.match(text, start - 3)):
            matches.append(match)
        yield from [m.span() for m in matches if _entropy(m[0][4:260]) >= _LEAST_ENTROPY]
        if begun := _TOKEN_START.search(text, start, end):
            if match := _TOKEN.match(text, begun.start()):
                yield match.span()
        elif not (matches or special) and len(run) < _RUN * 4:
            barren.add(run)


def _private_keys(text: str) -> Iterator[Span]:
    """From the first line to the last, or as far as it looks like a key where the last is missing."""
    at = 0
    while (near := text.find("PRIVATE KEY", at)) >= 0:
        match = _PEM_BEGIN.search(text, max(at, near - _PEM_HEAD), near + _PEM_HEAD)
        if match is None:
            at = near + 1
            continue
        body = _PEM_BODY.match(text, match.end())
        end = body.end() if body else match.end()
        if last := _PEM_END.search(text, match.end(), end + _DASHES):
            end = last.end()
        yield match.start(), end
        at = end


def _entropy(text: str) -> float:
    size = len(text)
    return -sum([n / size * math.log2(n / size) for n in Counter(text).values()]) if size else 0.0


_FINDERS: Mapping[Detector, Callable[[str], Iterator[Span]]] = {
    "card_number": _cards,
    "iban": _ibans,
    "email": _emails,
    "phone": _phones,
    "secret": _secrets,
}
