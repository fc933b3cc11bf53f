"""Recorded text and figures as a terminal may show them: it can't move the cursor or hide."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from llm_proxy.records.view import CostLabel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GONE = "\N{REPLACEMENT CHARACTER}"
_PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}
"""Control characters, and the symbols that Unicode has for them: ESC is shown as ␛."""
_BREAKS = {0x0A: "\n", 0x09: "    ", 0x2028: "\n", 0x2029: "\n"}
_UNSEEN = re.compile(
    "[\x80-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""C1 controls, what turns the direction of writing, halves of pairs, and invisible tags."""


def clean(text: str) -> str:
    """`text` without anything that a terminal acts on; line ends stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").translate(_PICTURES | _BREAKS)
    return _UNSEEN.sub(_GONE, text)


def line(text: str) -> str:
    """`clean`, on one line."""
    return " ".join(clean(text).split())


def clip(text: str, most: int) -> str:
    """`text`, cut after `most` characters where it is longer, saying by how much."""
    return text if len(text) <= most else f"{text[:most].rstrip()} … ({len(text) - most:,} more characters)"


def money(micro_usd: int) -> str:
    """Dollars: to the cent, and further down to the micro-dollar where there is something."""
    whole, part = divmod(abs(micro_usd), 1_000_000)
    digits = f"{part:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro_usd < 0 else ''}${whole:,}.{digits}"


def cost(micro_usd: int, label: CostLabel | None) -> str:
    """Money with how well it is known: `~` estimated, `≥` known in part; empty where nothing was charged."""
    match label:
        case CostLabel.UNPRICED:
            return "unpriced"
        case CostLabel.ESTIMATED:
            return f"~{money(micro_usd)}"
        case CostLabel.PARTIAL:
            return f"≥{money(micro_usd)}"
        case CostLabel.REPORTED:
            return money(micro_usd)
        case None:
            return money(micro_usd) if micro_usd else ""


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment(us: int | None) -> str:
    """Local date and time to the second; empty for None."""
    if us is None:
        return ""
    return f"{(_EPOCH + timedelta(microseconds=us)).astimezone():%Y-%m-%d %H:%M:%S}"


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
