"""The content that a filtered export has to hold: what records name, blocks of addresses opened."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from llm_proxy.audit.export import CannotExport, _Wanted  # pyright: ignore[reportPrivateUsage]
from llm_proxy.audit.findings import RecordRow
from llm_proxy.records import bodies
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.folding import folded
from llm_proxy.records.stored import named_in


class Wide(Addresser):
    """As earlier versions were: addresses of 32 bytes."""

    def address(self, content: bytes) -> bytes:
        return super().address(content) * 2


class Blobs:
    """Stands for the store: what was drafted."""

    def __init__(self, drafts: Sequence[BlobDraft]) -> None:
        self._drafts = {draft.id: draft for draft in drafts}

    def blobs(self, wanted: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for id_ in wanted:
            draft = self._drafts[id_]
            yield id_, draft.epoch, "raw", len(draft.content), draft.content


def row(kind: str, body: Any) -> RecordRow:
    return RecordRow("w", 1, kind, 1, "c", "r", "a", msgspec.json.encode(body), b"")


def long_list(addresser: Addresser) -> tuple[bodies.Content, list[bytes], Blobs]:
    """Twenty messages, folded."""
    drafts: list[BlobDraft] = []
    ids = [addresser.draft(b"message %d" % n, drafts) for n in range(20)]
    cuts = tuple((15 + 2 * n, id_.hex()) for n, id_ in enumerate(ids))
    envelope = '{"messages": [' + ", ".join([""] * 20) + "]}"
    content = bodies.Content(envelope=envelope, cuts=tuple((at - 1, id_) for at, id_ in cuts))
    return folded(content, ids, addresser, drafts), ids, Blobs(drafts)


@pytest.mark.parametrize("addresser", [Addresser(1, b"s" * 32), Wide(1, b"s" * 32)], ids=["now", "earlier"])
@pytest.mark.parametrize("kind", ["call.opened", "call.closed", "call.refused"])
def test_folded_messages_are_wanted(addresser: Addresser, kind: str) -> None:
    content, ids, blobs = long_list(addresser)
    assert content.fold is not None
    opened = bodies.Opened(dialect="openai_chat", content=content)
    closed = bodies.Closed(status="ok", sent=content)
    body = {
        "call.opened": opened,
        "call.closed": closed,
        "call.refused": bodies.Refused(
            opened=bodies.Opened(dialect="openai_chat"), closed=bodies.Closed(status="refused", sent=content)
        ),
    }[kind]
    with _Wanted() as wanted:
        wanted.take(row(kind, body))
        wanted.open_blocks(blobs)  # pyright: ignore[reportArgumentType]
        found = {id_ for page in wanted.pages() for id_ in page}
    assert found >= set(ids)
    assert len(found) > len(ids), "the blocks themselves"


def test_a_body_that_was_changed_ends_the_export() -> None:
    with _Wanted() as wanted, pytest.raises(CannotExport, match="w/1"):
        wanted.take(
            RecordRow("w", 1, "call.opened", 1, "c", "r", "a", b'{"content": {"fold": 7}, "fold":', b"")
        )


def test_rows_that_earlier_versions_named_are_read() -> None:
    older = b"\1" * 32 + b"\2" * 32
    newer = b"\3" * 16 + b"\4" * 32
    days = [
        {"epoch": 7, "rows": base64.b64encode(older * 2).decode()},
        {"epoch": 8, "named": base64.b64encode(newer).decode()},
    ]
    found = list(named_in(msgspec.json.encode({"days": days})))
    assert found == [(7, b"\1" * 32, b"\2" * 32)] * 2 + [(8, b"\3" * 16, b"\4" * 32)]
    short = [{"epoch": 8, "named": base64.b64encode(newer[:-1]).decode()}]
    with pytest.raises(ValueError, match="within a row"):
        list(named_in(msgspec.json.encode({"days": short})))
