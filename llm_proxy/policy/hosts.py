"""Host and domain names in one comparable form.

Names that two programs could read differently have no form at all: `parse_host` gives None for them, and a
check on them fails. International names are compared as their punycode (RFC 3492) and accepted only in the
spelling that IDNA 2003 and 2008 agree on, so `faß.de` (two different names) has none.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")


def parse_domain(text: str) -> str | None:
    """A DNS name in lower-case ASCII without a trailing dot; None for all else, IP addresses included."""
    labels = text.removesuffix(".").split(".")
    ascii_labels = [_ascii_label(label) for label in labels]
    if any(label is None for label in ascii_labels):
        return None
    name = ".".join(label for label in ascii_labels if label is not None)
    # A last label in digits makes it an IPv4 address to WHATWG URL parsers: 2130706433, 127.1, 0x7f.1
    if len(name) > 253 or _NUMERIC.match(name.rpartition(".")[2]):
        return None
    return name


def parse_host(text: str) -> str | None:
    """A domain, a dotted IPv4 or a bracketed IPv6 address in canonical form; None for anything else."""
    try:
        if text.startswith("[") and text.endswith("]"):
            address = ipaddress.IPv6Address(text[1:-1])
            return None if address.scope_id else f"[{address.compressed}]"
        if text.isascii() and text[:1].isdigit() and _NUMERIC.match(text.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None
    return parse_domain(text)


def parse_pattern(text: str) -> str | None:
    """A domain or `*.domain` from a policy, in comparable form."""
    if text.startswith("*."):
        domain = parse_domain(text[2:])
        return None if domain is None else f"*.{domain}"
    return parse_host(text)


def host_matches(pattern: str, host: str) -> bool:
    """Whether a parsed host is the pattern, or (`*.example.com`) a subdomain of it."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def _ascii_label(label: str) -> str | None:
    if label.isascii():
        label = label.lower()
        if not _LABEL.match(label):
            return None
        return label if label[2:4] != "--" or _valid_punycode(label) else None
    return _to_punycode(label)


def _to_punycode(label: str) -> str | None:
    settled = unicodedata.normalize("NFKC", label.casefold())
    if label != settled and label.lower() != settled:
        return None
    if any(unicodedata.category(char)[0] not in "LMN" and char != "-" for char in settled):
        return None
    encoded = "xn--" + settled.encode("punycode").decode("ascii")
    return encoded if _LABEL.match(encoded) else None


def _valid_punycode(label: str) -> bool:
    """Whether `xn--…` is what its own decoding encodes to, so that it has one spelling."""
    if not label.startswith("xn--"):
        return False
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return False
    return not decoded.isascii() and _to_punycode(decoded) == label
