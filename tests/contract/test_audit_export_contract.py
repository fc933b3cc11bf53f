"""An export of either store verifies with no store; a changed one, or one of a changed store, doesn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from llm_proxy.audit.export import Order, export
from llm_proxy.audit.exported import BadExport, kept_checkpoints, verify_export
from llm_proxy.audit.findings import Report
from llm_proxy.audit.lines import Filter
from llm_proxy.audit.source import Source, one_moment
from llm_proxy.signing import SigningKey
from tests.contract.audited import KEY, fill, verified
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW

pytest_plugins = ["tests.postgres"]
KEYS = {KEY.id: KEY.public}


def written(
    engine: Engine, file: Path, wish: Filter, key: SigningKey | None = KEY, *, content: bool = True
) -> list[bytes]:
    with one_moment(engine) as connection:
        found = list(export(Source(connection), Order("ada", wish, content, key, NOW)))
    file.write_bytes(b"".join(found))
    return found


def read(file: Path, lines: list[bytes] | None = None) -> Report:
    if lines is not None:
        file.write_bytes(b"".join(lines))
    return verify_export(file, KEYS, 50, lambda *_: None)


def edited(line: bytes, name: str, **fields: Any) -> bytes:
    told = json.loads(line)
    told[name] |= fields
    return json.dumps(told).encode() + b"\n"


async def test_an_export_verifies_with_no_store(engine: Engine, tmp_path: Path) -> None:
    await fill(engine)
    with engine.connect() as connection:
        whole = verified(connection)
    file = tmp_path / "out.jsonl"
    written(engine, file, Filter())
    report = read(file)
    assert (report.findings, report.notes) == ((), ())
    counts = (whole.records, whole.contents, whole.checkpoints, whole.writers, whole.unsigned)
    assert (report.records, report.contents, report.checkpoints, report.writers, report.unsigned) == counts
    for wish in (Filter(agent="bot"), Filter(since_us=NOW + 3), Filter(checkpoints=True), Filter(run="none")):
        written(engine, file, wish)
        report = read(file)
        assert report.intact, (wish, report.findings)
        assert report.records <= whole.records
        assert any("records were left out" in note for note in report.notes)
    with engine.connect() as connection:
        written(engine, file, Filter(checkpoints=True), content=False)
        assert verified(connection, kept=list(kept_checkpoints(file))).intact
        connection.rollback()
        for table in ("records", "blobs", "state_writers", "state_checkpoints", "state_covered"):
            connection.execute(text(f"DELETE FROM {table}"))
        assert verified(connection).intact, "an empty store has nothing to say"
        assert not verified(connection, kept=list(kept_checkpoints(file))).intact
        connection.rollback()


async def test_a_changed_line_is_found(engine: Engine, tmp_path: Path) -> None:
    await fill(engine)
    file = tmp_path / "out.jsonl"
    for wish, key in ((Filter(), KEY), (Filter(), None), (Filter(agent="bot"), KEY)):
        lines = written(engine, file, wish, key)
        records = [n for n, line in enumerate(lines) if line.startswith(b'{"record"')]
        some = [*records[::6], records[-1]]
        for number in some:
            line, rest = lines[number], lines[number + 1 :]
            for changed in (
                [edited(line, "record", at_us=5)],
                [edited(line, "record", body='{"n":"forged"}')],
                [edited(line, "record", hash="00" * 32)],
                [],
            ):
                report = read(file, [*lines[:number], *changed, *rest])
                assert not report.intact, (wish, number)
        assert not read(file, lines[:-1]).intact, "it was cut off"
        if wish == Filter():
            blob = next(n for n, line in enumerate(lines) if line.startswith(b'{"blob"'))
            smaller = edited(lines[blob], "blob", size=1)
            assert not read(file, [*lines[:blob], smaller, *lines[blob + 1 :]]).intact


async def test_an_export_of_another_or_of_nobody_proves_nothing(engine: Engine, tmp_path: Path) -> None:
    await fill(engine)
    file = tmp_path / "out.jsonl"
    lines = written(engine, file, Filter(agent="bot"), SigningKey.new())
    assert [f.row for f in read(file).findings if f.table == "export"] == ["end"]
    lines = written(engine, file, Filter(agent="bot"), None)
    assert "isn't signed" in read(file).findings[0].message
    for bad in ([], [b"{}\n"], [b"[]\n"], lines[1:], [*lines, lines[-1]], [b'{"header": 5}\n'], [b"\xff\n"]):
        with pytest.raises(BadExport, match=r"out\.jsonl"):
            read(file, bad)
