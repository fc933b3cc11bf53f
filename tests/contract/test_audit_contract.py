"""Verifying finds every single change of the evidence, and names the row: on both stores."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, insert, text

from llm_proxy.audit.findings import Finding, Wrong
from llm_proxy.records.blobs import epoch_of, keyed
from llm_proxy.records.chain import GENESIS, Row, link
from llm_proxy.records.tables import blobs, records, salts, writers
from tests.contract.audited import fill, verified
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW

pytest_plugins = ["tests.postgres"]


def rows(connection: Connection, query: str) -> list[Any]:
    return list(connection.execute(text(query)).fetchall())


def tampered(connection: Connection, *statements: tuple[str, dict[str, Any]]) -> list[Finding]:
    """What is found once these were run; then all is as before."""
    connection.rollback()
    for sql, values in statements:
        assert connection.execute(text(sql), values).rowcount == 1, sql
    report = verified(connection)
    connection.rollback()
    assert report.intact is not bool(report.findings)
    return list(report.findings)


def named(findings: list[Finding], row: str, table: str = "records") -> Wrong:
    """What is said of the row."""
    said = [f.what for f in findings if (f.table, f.row) == (table, row)]
    assert said, f"{table} {row} is not named: {findings}"
    return said[0]


WHERE = "writer = :writer AND seq = :seq"
EDITS: dict[str, Any] = {
    "kind": "call.refused",
    "at_us": 5,
    "call_id": "other",
    "run_id": None,
    "agent_id": "",
    "hash": b"\1" * 32,
}


def places(connection: Connection) -> list[tuple[str, int, str]]:
    return [
        tuple(row) for row in rows(connection, "SELECT writer, seq, kind FROM records ORDER BY writer, seq")
    ]


async def test_an_untouched_store_is_intact(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        report = verified(connection)
    assert (report.findings, report.intact, report.notes) == ((), True, ())
    assert (report.writers, report.contents, report.deleted) == (2, 30, 0)
    assert report.checkpoints >= 4
    assert report.unsigned == 1, "the last checkpoint itself"


async def test_any_changed_column_of_a_record_is_named(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        for writer, seq, kind in places(connection):
            at = {"writer": writer, "seq": seq}
            for column, value in EDITS.items():
                if column in ("call_id", "run_id", "agent_id") and kind != "call.closed" and not value:
                    continue  # it is NULL as it stands
                sql = f"UPDATE records SET {column} = :value WHERE {WHERE}"
                found = tampered(connection, (sql, {"value": value, **at}))
                assert named(found, f"{writer}/{seq}") is Wrong.EDITED
                assert len(found) == 1 or kind != "call.closed", found
            body = rows(connection, f"SELECT body FROM records WHERE writer = '{writer}' AND seq = {seq}")[0][
                0
            ]
            for byte in {0, len(body) // 2, len(body) - 1}:
                changed = bytearray(body)
                changed[byte] ^= 1
                found = tampered(
                    connection,
                    (f"UPDATE records SET body = :value WHERE {WHERE}", {"value": bytes(changed), **at}),
                )
                assert named(found, f"{writer}/{seq}") in (Wrong.EDITED, Wrong.SIGNATURE)


async def test_any_deleted_record_is_named(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        found = places(connection)
        last = {writer: seq for writer, seq, _ in found}
        for writer, seq, _ in found:
            at = {"writer": writer, "seq": seq}
            findings = tampered(connection, (f"DELETE FROM records WHERE {WHERE}", at))
            wanted = Wrong.CUT_OFF if seq == last[writer] else Wrong.DELETED
            assert named(findings, f"{writer}/{seq}") is wanted


async def test_any_swapped_pair_is_named(engine: Engine) -> None:
    await fill(engine)
    columns = "kind, at_us, call_id, run_id, agent_id, body"
    with engine.connect() as connection:
        at = places(connection)
        pairs = [(one, other) for one in at for other in at if one < other][::7]
        pairs += list(pairwise(at))
        for taken in (columns, f"{columns}, hash"):
            held = {(w, s): rows(connection, row_of(w, s, taken))[0] for w, s, _ in at}
            for (w1, s1, _), (w2, s2, _) in pairs:
                names = taken.split(", ")
                sets = ", ".join(f"{name} = :{name}" for name in names)
                sql = f"UPDATE records SET {sets} WHERE {WHERE}"
                first = dict(zip(names, held[w2, s2], strict=True)) | {"writer": w1, "seq": s1}
                second = dict(zip(names, held[w1, s1], strict=True)) | {"writer": w2, "seq": s2}
                findings = tampered(connection, (sql, first), (sql, second))
                said = {named(findings, f"{w1}/{s1}"), named(findings, f"{w2}/{s2}")}
                assert said == {Wrong.REORDERED}, (s1, s2, findings)


def row_of(writer: str, seq: int, columns: str) -> str:
    return f"SELECT {columns} FROM records WHERE writer = '{writer}' AND seq = {seq}"


async def test_any_change_of_content_is_named(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        for id_, data in rows(connection, "SELECT id, data FROM blobs ORDER BY id"):
            at, name = {"id": id_}, bytes(id_).hex()
            changed = bytearray(data)
            changed[len(data) // 2] ^= 4
            edits = {"epoch": 7, "codec": "gzip", "size": 5, "data": bytes(changed)}
            for column, value in edits.items():
                sql = f"UPDATE blobs SET {column} = :value WHERE id = :id"
                findings = tampered(connection, (sql, {"value": value, **at}))
                assert named(findings, name, "blobs") is Wrong.EDITED
            findings = tampered(connection, ("DELETE FROM blobs WHERE id = :id", at))
            assert named(findings, name, "blobs") is Wrong.DELETED
            moved = tampered(
                connection, ("UPDATE blobs SET id = :new WHERE id = :id", {"new": b"n" * 32, **at})
            )
            assert named(moved, name, "blobs") is Wrong.DELETED
            assert named(moved, (b"n" * 32).hex(), "blobs") is Wrong.INSERTED
        day = rows(connection, "SELECT min(epoch) FROM blobs")[0][0]
        for sql in (
            "UPDATE state_salts SET salt = :new WHERE epoch = :day",
            "DELETE FROM state_salts WHERE epoch = :day",
        ):
            values: dict[str, Any] = {"day": day} | ({"new": b"s" * 32} if ":new" in sql else {})
            findings = tampered(connection, (sql, values))
            assert named(findings, str(day), "state_salts") in (Wrong.EDITED, Wrong.DELETED)
        noted = ("INSERT INTO state_purged (epoch, at_us) VALUES (:day, 5)", {"day": day})
        assert named(tampered(connection, noted), str(day), "state_purged") is Wrong.INSERTED


def test_content_of_an_earlier_version_stands_unnamed_and_no_other(engine: Engine) -> None:
    """It had addresses of 32 bytes, and no record of what was stored."""
    salt, said = b"s" * 32, b"what was said"
    row = Row("earlier", 1, "call.closed", NOW, "c", "r", "a", b"{}")
    head = {"writer": row.writer, "started_us": NOW, "seen_us": NOW, "head_seq": 1, "exported_seq": 0}
    hashed = link(GENESIS, row)
    content = {"epoch": epoch_of(NOW), "codec": "raw", "size": len(said), "data": said}
    address, forged = keyed(said, salt), keyed(said, salt)[:16]
    with engine.connect() as connection:
        connection.execute(insert(writers).values(**head, head_hash=hashed))
        connection.execute(insert(records).values(**msgspec.structs.asdict(row), hash=hashed))
        connection.execute(insert(salts).values(epoch=epoch_of(NOW), salt=salt))
        connection.execute(insert(blobs).values(id=address, **content))
        connection.execute(insert(blobs).values(id=b"masked it was before" + b"." * 12, **content))
        report = verified(connection)
        assert (report.findings, report.contents) == ((), 1)
        assert report.notes[0].startswith("1 rows of content are of an earlier version and were masked")
        connection.execute(insert(blobs).values(id=forged, **content))
        report = verified(connection)
    assert [(one.row, one.what) for one in report.findings] == [(forged.hex(), Wrong.INSERTED)]
    assert report.contents == 1
