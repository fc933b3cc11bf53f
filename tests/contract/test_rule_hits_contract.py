"""What rules did by the hour: counted as verdicts are written, and anew from the records by the migration."""

from __future__ import annotations

from alembic import command
from sqlalchemy import Engine, insert, select

from llm_proxy.archive.listings import sum_agents
from llm_proxy.archive.rule_hits import rule_hits
from llm_proxy.records import bodies
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.engine import open_engine
from llm_proxy.records.evidence import CallClose, Evidence
from llm_proxy.records.migrate import _config, upgrade  # pyright: ignore[reportPrivateUsage]
from llm_proxy.records.policy_tables import rule_hits as table
from llm_proxy.records.rule_hits import HOUR_US, rule_hit_rows
from llm_proxy.records.statements import Statements
from llm_proxy.records.tables import calls, records
from llm_proxy.records.view import Decision
from llm_proxy.spend.rollup import Grouped, spend_row
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url

pytest_plugins = ["tests.postgres"]

NOW = 20_000 * DAY_US + 5 * HOUR_US


def _decided(decision: str, rule: str, *hits: str) -> Decision:
    return Decision(
        tool_call_id="c", tool="t", decision=decision, rule=rule, hits=(rule, *hits) if rule else ()
    )


VERDICTS = [
    (NOW, (_decided("deny", "a"), _decided("allow", "b", "a"))),
    (NOW + 1, (_decided("allow", "b"), _decided("allow", ""))),
    (NOW + HOUR_US, (_decided("deny", "a", "b"),)),
    (NOW - 30 * HOUR_US, (_decided("deny", "old"),)),
]


def _told(engine: Engine) -> None:
    with engine.connect() as connection:
        found = rule_hits(connection, NOW, NOW + 2 * HOUR_US, HOUR_US)
        by_day = rule_hits(connection, NOW - 48 * HOUR_US, NOW + 2 * HOUR_US, 24 * HOUR_US)
    a, b = found.rules
    assert (a.rule, a.allowed, a.denied, a.also, a.last_us) == ("a", 0, 2, 1, NOW + HOUR_US)
    assert (b.rule, b.allowed, b.denied, b.also, b.last_us) == ("b", 2, 0, 1, NOW + HOUR_US)
    assert [(span.from_us, span.hits) for span in a.over_time] == [(NOW, 2), (NOW + HOUR_US, 1)]
    assert found.judged == 5
    assert by_day.judged == 6
    assert [rule.rule for rule in by_day.rules] == ["a", "b", "old"]
    assert [span.hits for span in by_day.rules[0].over_time] == [3]


def test_verdicts_are_counted_as_they_are_written(engine: Engine) -> None:
    pieces = [Evidence(rule_hits=rule_hit_rows(decisions, at_us)) for at_us, decisions in VERDICTS]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        statements = Statements(engine.dialect)
        statements.write(connection, pieces[:1])
        statements.write(connection, pieces[1:])
    _told(engine)


def test_the_migration_counts_what_is_on_record(url: str) -> None:
    engine = open_engine(url)
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "0006")
            whose = {"writer": "w", "kind": "call.verdicts", "hash": b"", "call_id": "c"}
            told = [
                {
                    **whose,
                    "seq": n,
                    "at_us": at_us,
                    "body": bodies.encode(bodies.Verdicts(decisions=d, revision=1)),
                }
                for n, (at_us, d) in enumerate(VERDICTS)
            ]
            damaged = {**whose, "seq": 9, "at_us": NOW, "body": b'{"decisions": [7'}
            connection.execute(insert(records), [*told, damaged])
        upgrade(engine)
        _told(engine)
        with engine.connect() as connection:
            assert connection.execute(select(table).where(table.c.rule == "")).all()
    finally:
        engine.dispose()


def test_agents_are_summed_up_with_calls_that_are_open(engine: Engine) -> None:
    ended, opened = NOW, NOW + 7
    by = Grouped("bot", "", "", "m", "t", "p", "")
    close = CallClose("refused", ended + 5, "t", "p", 1, 1, 1, 0, 0, 0, 30, 0, "reported", "v", None, "e")
    row = {
        "run_id": "r",
        "team": "",
        "user_id": "",
        "key_id": "k",
        "dialect": "d",
        "stream": False,
        "model": "m",
    }
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        Statements(engine.dialect).spend.run(connection, [tuple(spend_row(ended, by, close))])
        lines = [
            {**row, "id": "e", "agent_id": "bot", "status": "refused", "started_us": ended},
            {**row, "id": "o", "agent_id": "bot", "status": "open", "started_us": opened},
            {**row, "id": "n", "agent_id": "new", "status": "open", "started_us": opened},
        ]
        connection.execute(insert(calls), lines)
        found = sum_agents(connection)
        assert sum_agents(connection, "bot") == {"bot": found["bot"]}
    bot, new = found["bot"], found["new"]
    assert (bot.calls, bot.refused, bot.cost_micro_usd, bot.last_us) == (2, 1, 30, opened)
    assert (new.calls, new.refused, new.cost_micro_usd, new.last_us) == (1, 0, 0, opened)
