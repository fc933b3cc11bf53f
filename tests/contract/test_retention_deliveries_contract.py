"""Arguments that webhooks were sent go with their day, and early where content isn't kept in full."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.tables import deliveries
from llm_proxy.retention import keeper as keeper_module
from llm_proxy.retention.keeper import Rules
from tests.contract.aged import house
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW

pytest_plugins = ["tests.postgres"]
ASKED = '{"type":"approval.requested","data":{"id":"a","arguments":"{\\"to\\":\\"Ann\\"}"}}'
QUIET = '{"type":"budget.warning","data":{"said":"\\"arguments\\":"}}'


def sent(engine: Engine, ago: int, name: str, body: str, *, ended: bool = True) -> None:
    at = NOW - ago * DAY_US
    row = {"id": f"{name}-{ago}", "webhook": "hook", "event": "e", "body": body, "created_us": at}
    with engine.begin() as connection:
        connection.execute(
            deliveries.insert().values(**row, ended_us=at if ended else None, next_us=None if ended else at)
        )


def left(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(deliveries.c.id)).scalars())


@pytest.mark.parametrize("keeps_all", [True, False])
async def test_arguments_that_were_sent_go(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, keeps_all: bool
) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.0)
    async with house(engine, 20) as old:
        await old.call()
    for ago in (0, 2, 20):
        sent(engine, ago, "asked", ASKED)
        sent(engine, ago, "quiet", QUIET)
    sent(engine, 20, "waiting", ASKED, ended=False)
    async with house(engine, rules=Rules(days=7, keeps_all=keeps_all)) as now:
        await now.retention.turn()
    kept = {"asked-0", "quiet-0", "quiet-2", "quiet-20", "waiting-20"}
    assert left(engine) == (kept | {"asked-2"} if keeps_all else kept)
