"""Verifying finds whole writers that vanished, heads that were set back, and checkpoints that were forged."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine, text

from llm_proxy.audit.checkpoint import read_checkpoint, signed_body
from llm_proxy.audit.findings import Wrong
from llm_proxy.audit.since import NoCheckpoint, starts_at
from llm_proxy.records.chain import GENESIS, Row, link
from llm_proxy.signing import SigningKey
from tests.contract.audited import KEY, fill, verified
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.contract.test_audit_contract import WHERE, named, places, row_of, rows, tampered

pytest_plugins = ["tests.postgres"]
STATE = ("state_writers", "state_checkpoints", "state_covered")


def without(connection: Connection, sql: str, **values: Any) -> None:
    connection.execute(text(sql), values)


async def test_a_writer_that_vanished_with_all_its_state_is_named(engine: Engine) -> None:
    """The last writer of all is named by nothing that follows: its content tells, and copies elsewhere."""
    await fill(engine)
    with engine.connect() as connection:
        first, last = sorted({writer for writer, _, _ in places(connection)})
        for writer in (first, last):
            connection.rollback()
            for table in ("records", *STATE):
                without(connection, f"DELETE FROM {table} WHERE writer = :writer", writer=writer)
            report = verified(connection)
            assert not report.intact
            if writer == first:
                gone = [f.row.split("/")[0] for f in report.findings if f.what is Wrong.CUT_OFF]
                assert gone == [first], report.findings
            connection.rollback()


async def test_a_tail_that_was_cut_off_with_its_head_is_named(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        first = min(writer for writer, _, _ in places(connection))
        last = max(seq for writer, seq, _ in places(connection) if writer == first)
        at = {"writer": first, "seq": last - 3}
        kept = rows(connection, f"SELECT hash FROM records WHERE writer = '{first}' AND seq = {last - 3}")[0][
            0
        ]
        connection.rollback()
        without(connection, "DELETE FROM records WHERE writer = :writer AND seq > :seq", **at)
        without(
            connection,
            "UPDATE state_writers SET head_seq = :seq, head_hash = :hash WHERE writer = :writer",
            hash=kept,
            **at,
        )
        findings = list(verified(connection).findings)
        assert any(f.what is Wrong.CUT_OFF and f.row.startswith(f"{first}/") for f in findings), findings
        connection.rollback()


async def test_what_stands_beside_the_evidence_must_say_the_same(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        writer, seq = next((w, s) for w, s, kind in places(connection) if kind == "audit.checkpoint")
        at = {"writer": writer}
        for sql, table, row in (
            ("DELETE FROM state_writers WHERE writer = :writer", "state_writers", writer),
            ("UPDATE state_writers SET head_hash = :v WHERE writer = :writer", "state_writers", writer),
            ("UPDATE state_writers SET head_seq = 3 WHERE writer = :writer", "state_writers", writer),
            ("UPDATE state_covered SET seq = 9999 WHERE writer = :writer", "state_covered", writer),
            (
                f"DELETE FROM state_checkpoints WHERE writer = :writer AND seq = {seq}",
                "state_checkpoints",
                f"{writer}/{seq}",
            ),
            (
                "INSERT INTO state_checkpoints (writer, seq, at_us) VALUES (:writer, 2, 1)",
                "state_checkpoints",
                f"{writer}/2",
            ),
        ):
            values = at | ({"v": b"h" * 32} if ":v" in sql else {})
            named(tampered(connection, (sql, values)), row, table)
        more = "UPDATE state_writers SET head_seq = 99 WHERE writer = :writer"
        assert named(tampered(connection, (more, at)), f"{writer}/99") is Wrong.CUT_OFF


async def test_added_records_are_named(engine: Engine) -> None:
    await fill(engine)
    insert = (
        "INSERT INTO records (writer, seq, kind, at_us, body, hash) "
        "VALUES (:writer, :seq, 'call.closed', 5, :body, :hash)"
    )
    with engine.connect() as connection:
        writer = places(connection)[-1][0]
        last = places(connection)[-1][1]
        for seq in (0, -4, last + 1, last + 7):
            values = {"writer": writer, "seq": seq, "body": b"{}", "hash": b"x" * 32}
            findings = tampered(connection, (insert, values))
            assert any(f.row.startswith(writer) for f in findings), findings
        stranger = {"writer": "stranger", "seq": 1, "body": b"{}", "hash": b"x" * 32}
        findings = tampered(connection, (insert, stranger))
        assert named(findings, "stranger/1") is Wrong.EDITED
        assert named(findings, "stranger", "state_writers") is Wrong.DELETED


async def test_a_chain_that_was_written_anew_is_named(engine: Engine) -> None:
    """Every hash after an edit made right, and the head: only the signed heads tell."""
    await fill(engine)
    with engine.connect() as connection:
        writer = places(connection)[0][0]
        connection.rollback()
        _rewrite(connection, writer, 4, b'{"n":"forged"}')
        findings = list(verified(connection).findings)
        assert any(f.what is Wrong.EDITED and f.row.startswith(f"{writer}/") for f in findings), findings
        connection.rollback()


async def test_a_checkpoint_of_another_key_is_named(engine: Engine) -> None:
    await fill(engine)
    forger = SigningKey.new()
    with engine.connect() as connection:
        writer, seq = next(
            (w, s) for w, s, kind in reversed(places(connection)) if kind == "audit.checkpoint"
        )
        body = rows(connection, row_of(writer, seq, "body"))[0][0]
        told = read_checkpoint(bytes(body))
        for forged in (
            signed_body(told, forger),
            signed_body(msgspec.structs.replace(told, key=forger.id), forger),
        ):
            connection.rollback()
            _rewrite(connection, writer, seq, forged)
            assert named(list(verified(connection).findings), f"{writer}/{seq}") is Wrong.SIGNATURE
            connection.rollback()
        assert not verified(connection, keys={}).intact


async def test_it_goes_on_from_a_checkpoint(engine: Engine) -> None:
    await fill(engine)
    keys = {KEY.id: KEY.public}
    with engine.connect() as connection:
        marks = [(w, s) for w, s, kind in places(connection) if kind == "audit.checkpoint"]
        whole = verified(connection)
        middle = f"{marks[2][0]}/{marks[2][1]}"
        part = verified(connection, starts=starts_at(connection, middle, keys))
        assert part.intact
        assert 0 < part.records < whole.records
        assert 0 < part.contents < whole.contents
        connection.rollback()
        sql = f"UPDATE records SET at_us = 5 WHERE {WHERE}"
        without(connection, sql, writer=marks[-1][0], seq=marks[-1][1])
        assert not verified(connection, starts=starts_at(connection, middle, keys)).intact
        connection.rollback()
        for wrong in ("nobody/3", middle.replace("/", "/9"), "x", "x/y"):
            with pytest.raises(NoCheckpoint, match="There is no checkpoint"):
                starts_at(connection, wrong, keys)


def _rewrite(connection: Connection, writer: str, seq: int, body: bytes) -> None:
    """Changes a body, and makes every hash behind it and the head right."""
    previous = GENESIS
    columns = "seq, kind, at_us, call_id, run_id, agent_id, body"
    query = f"SELECT {columns} FROM records WHERE writer = '{writer}' ORDER BY seq"
    for at, kind, at_us, call_id, run_id, agent_id, old in rows(connection, query):
        new = body if at == seq else bytes(old)
        previous = link(previous, Row(writer, at, kind, at_us, call_id, run_id, agent_id, new))
        change = f"UPDATE records SET body = :body, hash = :hash WHERE {WHERE}"
        without(connection, change, body=new, hash=previous, writer=writer, seq=at)
    without(connection, "UPDATE state_writers SET head_hash = :h WHERE writer = :w", h=previous, w=writer)
