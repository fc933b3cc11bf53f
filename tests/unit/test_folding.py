"""Long lists of messages fold into few addresses, and unfold to what they were."""

from __future__ import annotations

import pytest

from llm_proxy.records.blobs import Addresser
from llm_proxy.records.bodies import Content
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.folding import WIDTH, folded, unfolded

ADDRESSER = Addresser(1, b"s" * 32)


def content_of(ids: list[bytes], step: int = 2) -> Content:
    """A body with a value before its messages, and one behind them."""
    cuts = [(3, b"a" * 32), *((40 + n * step, id_) for n, id_ in enumerate(ids)), (40_000, b"z" * 32)]
    return Content(envelope="{}", cuts=tuple((at, id_.hex()) for at, id_ in cuts), masked=True)


def ids_of(many: int) -> list[bytes]:
    return [ADDRESSER.address(b"%d" % n) for n in range(many)]


@pytest.mark.parametrize("many", [0, 1, WIDTH - 1, WIDTH, WIDTH + 1, 64, 65, 100, 513, 5_000])
def test_what_is_folded_unfolds(many: int) -> None:
    ids, drafts = ids_of(many), list[BlobDraft]()
    before = content_of(ids)
    after = folded(before, ids, ADDRESSER, drafts)
    assert (after.fold is None) == (many < WIDTH)
    blobs = {draft.id: draft.content for draft in drafts}
    asked: list[set[bytes]] = []

    def fetch(wanted: set[bytes]) -> dict[bytes, bytes]:
        asked.append(wanted)
        return {id_: blobs[id_] for id_ in wanted}

    used: set[bytes] = set()
    assert unfolded(after, fetch, used) == before
    assert used == blobs.keys()
    assert len(asked) <= 5
    if after.fold is not None:
        assert len(after.fold.parts) <= (WIDTH - 1) * (len(asked) + 1)


def test_what_stands_between_messages_is_told_once() -> None:
    ids = ids_of(20)
    envelope = '{"a": ,"messages":[' + ", " * 19 + '],"ü": }'
    start = envelope.index("[") + 1
    behind = len(envelope.encode()) - 1
    cuts = ((6, b"a" * 32), *((start + n * 2, id_) for n, id_ in enumerate(ids)), (behind, b"z" * 32))
    before = Content(envelope=envelope, cuts=tuple((at, id_.hex()) for at, id_ in cuts))
    drafts: list[BlobDraft] = []
    after = folded(before, ids, ADDRESSER, drafts)
    assert after.envelope == '{"a": ,"messages":[],"ü": }'
    blobs = {draft.id: draft.content for draft in drafts}
    assert unfolded(after, lambda wanted: {id_: blobs[id_] for id_ in wanted}, set()) == before


def test_a_list_that_grew_shares_its_blocks() -> None:
    ids, first, more = ids_of(200), list[BlobDraft](), list[BlobDraft]()
    folded(content_of(ids[:198]), ids[:198], ADDRESSER, first)
    folded(content_of(ids), ids, ADDRESSER, more)
    assert len({draft.id for draft in more} - {draft.id for draft in first}) <= 2


def test_what_does_not_stand_evenly_stays_as_it_is() -> None:
    ids = ids_of(20)
    cuts = tuple((n * n, id_.hex()) for n, id_ in enumerate(ids))
    uneven = Content(envelope="{}", cuts=cuts)
    assert folded(uneven, ids, ADDRESSER, []) is uneven


def test_without_a_block_nothing_is_unfolded() -> None:
    ids = ids_of(20)
    after = folded(content_of(ids), ids, ADDRESSER, [])
    assert unfolded(after, lambda _: {}, set()) is None
