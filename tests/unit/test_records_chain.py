"""The hash chain: every column counts, and so does what came before."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from msgspec import structs

from llm_proxy.records.chain import GENESIS, Row, link

ROW = Row("w", 1, "call.opened", 5, "call", "run", "bot", b"{}")


def test_a_link_is_what_its_docstring_says() -> None:
    array = msgspec.msgpack.encode(["w", 1, "call.opened", 5, "call", "run", "bot", b"{}"])
    assert link(GENESIS, ROW) == hashlib.sha256(GENESIS + array).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"writer": "v"},
        {"seq": 2},
        {"kind": "call.closed"},
        {"at_us": 6},
        {"call_id": None},
        {"run_id": ""},
        {"agent_id": "bo"},
        {"body": b"{ }"},
    ],
)
def test_every_column_is_hashed(change: dict[str, object]) -> None:
    assert link(GENESIS, structs.replace(ROW, **change)) != link(GENESIS, ROW)


def test_every_field_of_a_row_is_tried_above() -> None:
    assert len(Row.__struct_fields__) == 8


def test_a_link_names_the_row_before_it() -> None:
    assert link(link(GENESIS, ROW), ROW) != link(GENESIS, ROW)


def test_text_cannot_move_between_columns_unseen() -> None:
    one = structs.replace(ROW, call_id="a", run_id="bc")
    two = structs.replace(ROW, call_id="ab", run_id="c")
    assert link(GENESIS, one) != link(GENESIS, two)
