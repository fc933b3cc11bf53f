"""The arguments of judged calls: content, and so a blob beside the verdicts, whose record has its address.

What stands in a record is there for as long as the chain; what stands in a blob goes with its day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import structs

from llm_proxy.records.bodies import Verdicts
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.view import Decision


class KeptArguments(NamedTuple):
    """What is kept of the arguments of a reply's calls: one blob, at `address` (hex)."""

    masked: tuple[bool, ...] = ()
    """By call: something of it is not as it was."""
    address: str = ""
    blobs: tuple[BlobDraft, ...] = ()


NO_ARGUMENTS = KeptArguments()

pack = msgspec.json.Encoder().encode
"""The blob of the calls' argument texts, in order."""
_unpack = msgspec.json.Decoder(tuple[str, ...]).decode


def as_recorded(decisions: Sequence[Decision], kept: KeptArguments) -> tuple[Decision, ...]:
    """Verdicts as their record has them: without the arguments."""
    masked = kept.masked or (False,) * len(decisions)
    return tuple(
        [
            structs.replace(decision, arguments="", masked=is_masked)
            for decision, is_masked in zip(decisions, masked, strict=True)
        ]
    )


def addresses_of(verdicts: Verdicts) -> set[bytes]:
    """The blobs that the verdicts need."""
    return {bytes.fromhex(verdicts.arguments)} if verdicts.arguments else set()


def with_arguments(verdicts: Verdicts, blobs: Mapping[bytes, bytes]) -> tuple[Decision, ...]:
    """The verdicts with their arguments, as far as those are kept. Older records hold them themselves."""
    if not verdicts.arguments:
        return verdicts.decisions
    blob = blobs.get(bytes.fromhex(verdicts.arguments))
    if blob is None:
        return tuple([structs.replace(decision, kept=False) for decision in verdicts.decisions])
    return tuple(
        [
            structs.replace(decision, arguments=text)
            for decision, text in zip(verdicts.decisions, _unpack(blob), strict=True)
        ]
    )
