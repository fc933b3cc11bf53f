"""Content: addresses under a day's salt, what is remembered of it, and the codec."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.records.blobs import CODEC, DAY_US, Addresser, Codec, epoch_of
from llm_proxy.records.evidence import BlobDraft

SALT, OTHER = b"s" * 32, b"t" * 32


def pack(content: bytes) -> tuple[str, bytes]:
    [packed] = Codec().pack([content])
    return packed


@given(st.binary(max_size=5_000))
def test_what_is_packed_unpacks(content: bytes) -> None:
    name, data = pack(content)
    assert Codec().unpack(name, data, len(content)) == content


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"long " * 100_000])
def test_only_what_is_worth_it_is_compressed(content: bytes) -> None:
    name, data = pack(content)
    assert name == ("raw" if len(content) < 64 else CODEC)
    assert len(data) <= len(content)
    assert Codec().unpack(name, data, len(content)) == content


def test_many_are_packed_each_by_itself() -> None:
    contents = [b"a" * 500, b"b", b"c" * 9_000]
    codec = Codec()
    found = [codec.unpack(n, d, len(c)) for (n, d), c in zip(codec.pack(contents), contents, strict=True)]
    assert found == contents


def test_a_day_ends_at_midnight_utc() -> None:
    assert [epoch_of(at) for at in (0, DAY_US - 1, DAY_US)] == [0, 0, 1]


def test_an_address_is_a_keyed_hash() -> None:
    addresser = Addresser(1, SALT)
    assert addresser.address(b"x") == hashlib.blake2b(b"x", digest_size=32, key=SALT).digest()[:16]
    addresser.roll(2, OTHER)
    assert addresser.address(b"x") == hashlib.blake2b(b"x", digest_size=32, key=OTHER).digest()[:16]


def test_content_is_drafted_until_a_commit_stored_it() -> None:
    addresser = Addresser(1, SALT)
    first: list[BlobDraft] = []
    id_ = addresser.draft(b"x", first)
    again: list[BlobDraft] = []
    assert addresser.draft(b"x", again) == id_
    assert first == again == [BlobDraft(id_, 1, b"x")], "a commit that fails must not lose it"
    addresser.committed(first)
    after: list[BlobDraft] = []
    assert addresser.draft(b"x", after) == id_
    assert after == []


def test_a_new_day_stores_everything_anew() -> None:
    addresser = Addresser(1, SALT)
    yesterday: list[BlobDraft] = []
    addresser.draft(b"x", yesterday)
    addresser.roll(2, OTHER)
    addresser.committed(yesterday)
    today: list[BlobDraft] = []
    id_ = addresser.draft(b"x", today)
    assert today == [BlobDraft(id_, 2, b"x")]
    assert id_ != yesterday[0].id


def test_what_is_remembered_is_bounded_and_the_latest_used() -> None:
    addresser = Addresser(1, SALT, remember=3)
    contents = [b"%d" % n for n in range(4)]
    drafts: list[BlobDraft] = []
    for content in contents[:3]:
        addresser.draft(content, drafts)
    addresser.committed(drafts)
    addresser.draft(contents[0], [])
    more: list[BlobDraft] = []
    addresser.draft(contents[3], more)
    addresser.committed(more)
    forgotten: list[BlobDraft] = []
    for content in contents:
        addresser.draft(content, forgotten)
    assert [draft.content for draft in forgotten] == [contents[1]]
