"""What is kept of content: secrets, and what a policy has masked `in: [record]`, replaced.

All of this is pure. A text in which nothing is found costs one quick look; only where something is found is
it read string by string. Secrets are found in any bytes; the rest in what people and models said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec import structs

from llm_proxy.policy.vocabulary import DETECTORS, Detector
from llm_proxy.redacting.detectors import find, holds_secret
from llm_proxy.redacting.rules import Hit, Redaction, Rule, hits, merged, replaced
from llm_proxy.redacting.shown import MASK
from llm_proxy.redacting.strings import Said, Walk
from llm_proxy.wire.seal import MARK, unwrap, wrap

SECRETS = Rule("secrets", "*", (), "secret", "mask", None)
"""What masks secrets without a policy."""
EVERYWHERE = "*"
_CARRIED = MARK.encode()
_ENVELOPE = re.compile(rb"llmp1\.[A-Za-z0-9_\-]++")

_NAMES = frozenset(
    {"id", "call_id", "tool_call_id", "tool_use_id", "item_id", "response_id", "previous_response_id", "type"}
    | {"role", "object", "model", "name", "created", "created_at", "signature", "encrypted_content", "data"}
    | {"system_fingerprint", "completed_at", "file_id", "file_data", "image_url", "url", "b64_json"}
)
"""Keys of what nobody says: a secret alone is masked there."""
_VALUES = frozenset({"arguments", "input", "content", "output", "text"})
"""Keys below which numbers are somebody's data."""


_PIECE = 1 << 20
_SEAM = 1 << 16
"""Bytes of the next piece that are read with one: no value is longer."""


@dataclass(frozen=True, slots=True)
class RecordMask:
    """One policy's, or that of none. `everywhere`: rules for all text; `results`: for those of some tools."""

    key: bytes
    everywhere: tuple[Rule, ...]
    results: tuple[Rule, ...] = ()

    def holds(self, data: bytes) -> bool:
        """Whether there may be something to mask in bytes of any kind. Much is read piece by piece."""
        if len(data) <= _PIECE:
            return self._holds(data)
        view = memoryview(data)
        return any(
            self._holds(bytes(view[start : start + _PIECE + _SEAM])) for start in range(0, len(data), _PIECE)
        )

    def _holds(self, data: bytes) -> bool:
        if any(rule.detect == "secret" for rule in self.everywhere) and holds_secret(data):
            return True
        if data.find(_CARRIED) >= 0 and any(self._carries(text) for text in _ENVELOPE.findall(data)):
            return True
        kinds: list[Detector] = [
            rule.detect for rule in self.everywhere if rule.detect and rule.detect != "secret"
        ]
        if not kinds:
            return False
        text = data.decode("utf-8", "replace")
        return "\\u" in text or "\\/" in text or any(find(kind, text) for kind in kinds)

    def text(self, text: str) -> str | None:
        """`text` masked; None where there is nothing to mask."""
        found = merged(hits(self.everywhere, text, self.key))
        return replaced(text, found) if found else None

    def string(self, said: Said) -> list[Hit]:
        """What is to be masked in one string of a JSON text."""
        if said.text.startswith(MARK):
            return self.carried(said.text)
        return merged(hits(self.spoken(said), said.text, self.key))

    def carried(self, text: str) -> list[Hit]:
        """The same of words that travel in an envelope beside their seal."""
        part = unwrap(text)
        words = self.text(part.text) if part is not None else None
        if part is None or words is None:
            return []
        return [Hit(0, len(text), 0, wrap(structs.replace(part, text=words)))]

    def _carries(self, envelope: bytes) -> bool:
        part = unwrap(envelope.decode())
        return part is not None and self.holds(part.text.encode("utf-8", "replace"))

    def spoken(self, said: Said) -> Sequence[Rule]:
        """The rules for a string where it stands."""
        if said.is_number:
            return self.everywhere if not _VALUES.isdisjoint(said.keys) else ()
        if said.keys and said.keys[-1] in _NAMES and not _is_argument(said.keys):
            return [rule for rule in self.everywhere if rule.detect == "secret"]
        return self.everywhere

    def json(self, text: str) -> list[tuple[int, int, str]]:
        """What masks a JSON text, or one with values cut out: its strings, each by itself. Keys too."""
        return [
            (said.start, said.end, said.literal(replaced(said.text, found), text))
            for said in Walk(text).strings()
            if (found := self.string(said))
        ]

    def content(self, data: bytes) -> bytes | None:
        """Masks a JSON value, or a body of another kind; None where there is nothing to mask."""
        if not self.holds(data):
            return None
        text, code = decoded(data)
        if not text.lstrip()[:1].startswith(("{", "[", '"')):
            masked = self.text(text)
            return None if masked is None else masked.encode(code, "replace")
        edits = self.json(text)
        out = spliced(text, edits).encode(code, "surrogatepass") if edits else data
        out = self.swept(out)
        return None if out == data else out

    def swept(self, data: bytes) -> bytes:
        """Without the secrets that stand in no string: in what breaks off or is no JSON after all."""
        if not any(rule.detect == "secret" for rule in self.everywhere):
            return data
        text = data.decode("latin-1")
        found = find("secret", text)
        return replaced(text, [Hit(a, b, 0, MASK) for a, b in found]).encode("latin-1") if found else data


def _is_argument(keys: tuple[str, ...]) -> bool:
    """Whether a string stands in a tool call's arguments, where every name is the tool's own."""
    above = keys[:-1]
    return "arguments" in above or "partial_json" in above or "input" in above[1:]


def record_mask(
    redaction: Redaction | None, secret: bytes, *, mask_secrets: bool, everything: bool = False
) -> RecordMask | None:
    """What is masked under a policy's rules; None where that is nothing.

    `everything`: whatever any detector finds, secrets too, and what the policy's rules for other places than
    records find in results.
    """
    if everything:
        return _all_masked(redaction, secret)
    rules = redaction.records if redaction is not None else ()
    everywhere = [rule for rule in rules if rule.detect is not None and rule.tool == EVERYWHERE]
    results = [rule for rule in rules if rule.detect is None or rule.tool != EVERYWHERE]
    if mask_secrets:
        everywhere.append(SECRETS)
    if not (everywhere or results):
        return None
    return RecordMask(redaction.key if redaction is not None else secret, tuple(everywhere), tuple(results))


def _all_masked(redaction: Redaction | None, secret: bytes) -> RecordMask:
    rules = redaction.every if redaction is not None else ()
    results = [rule for rule in rules if rule.detect is None]
    everywhere = [Rule(kind, EVERYWHERE, (), kind, "mask", None) for kind in DETECTORS]
    return RecordMask(redaction.key if redaction is not None else secret, tuple(everywhere), tuple(results))


def decoded(data: bytes) -> tuple[str, str]:
    """Bytes as text, and the code by which the same bytes come of it."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def spliced(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """`text` with the edits made, which are apart."""
    pieces: list[str] = []
    at = 0
    for start, end, new in sorted(edits):
        pieces += (text[at:start], new)
        at = end
    return "".join([*pieces, text[at:]])
