"""How fast a freeze cut an agent off is told by the last of its replies that was open then."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from llm_proxy.posture.figures import figures
from llm_proxy.records.tables import calls, records
from tests.stores import NOW, store

S = 1_000_000


def _call(engine: Engine, id_: str, ended_us: int, error: str, started_us: int = NOW - S) -> None:
    row: dict[str, object] = {"id": id_, "run_id": id_, "agent_id": "bot", "key_id": "k", "model": "m"}
    row |= {"started_us": started_us, "ended_us": ended_us, "error": error}
    row |= {"team": "", "user_id": "", "dialect": "openai_chat", "stream": True}
    row["status"] = "cut" if error else "ok"
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(calls.insert().values(row))


@pytest.mark.parametrize(
    ("others", "seconds"),
    [
        ((), 0.5),
        ((("ended before", NOW - 1, "", NOW - S),), 0.5),
        ((("began after", NOW + 9 * S, "", NOW + 1),), 0.5),
        ((("went on", NOW + 30 * S, "", NOW - S),), 30.0),
        ((("went on for long", NOW + 90 * S, "agent_frozen", NOW - S),), 90.0),
    ],
    ids=lambda value: value[0][0] if isinstance(value, tuple) and value else None,
)
def test_a_reply_that_outlived_the_freeze_counts(
    tmp_path: Path, others: tuple[tuple[str, int, str, int], ...], seconds: float
) -> None:
    with store(f"sqlite:///{tmp_path / 'store.db'}") as engine:
        freeze = {"writer": "w", "seq": 1, "kind": "agent.frozen", "at_us": NOW, "agent_id": "bot"}
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(records.insert().values(freeze | {"body": b"{}", "hash": b"h"}))
        _call(engine, "cut", NOW + S // 2, "agent_frozen")
        for other in others:
            _call(engine, *other)
        with engine.connect() as connection:
            cut = figures(connection, NOW - 10 * S, NOW + 100 * S).cut
        assert cut is not None
        assert (cut.agent_id, cut.streams, cut.seconds) == ("bot", 1, seconds)
