"""Letting callers in: keys issued meanwhile, wrong ones counted, a store that is down is no wrong key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity import access as access_module
from llm_proxy.identity.access import Access
from llm_proxy.identity.caller import Agent
from llm_proxy.identity.headers import Headers
from llm_proxy.identity.keyring import Credential, Keyring, hash_key
from llm_proxy.records.tables import refusals
from tests.stores import NOW, Clock, store, writing


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


class Issued:
    """The issued keys, as the store holds them."""

    def __init__(self) -> None:
        self.keys: list[Credential] = []
        self.reads = 0
        self.down = False

    def __call__(self) -> list[Credential]:
        self.reads += 1
        if self.down:
            raise OperationalError("SELECT", None, Exception("no route"))
        return list(self.keys)

    def add(self, key: str, expires_us: int | None = None, revoked_us: int | None = None) -> None:
        self.keys.append(Credential(f"id-{key}", "bot", hash_key(key), "", expires_us, revoked_us))


def ring() -> Keyring:
    return Keyring({"bot": Agent("bot")}, [Credential("cfg", "bot", hash_key("lp-fixed"))])


def bearer(key: str) -> Headers:
    return {b"authorization": b"Bearer " + key.encode()}


async def code(access: Access, headers: Headers) -> str:
    try:
        return (await access.identify(headers)).key_id
    except ProxyError as error:
        return error.kind.value


def counted(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(select(refusals.c.reason, refusals.c["count"])).all()
    return {row.reason: row[1] for row in rows}


async def test_who_has_a_key_is_let_in_and_who_has_none_is_counted(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        issued.add("lp-late", expires_us=NOW)
        access = Access(ring(), issued, writer, Clock())
        assert await code(access, bearer("lp-fixed")) == "cfg"
        assert issued.reads == 0
        assert await code(access, {}) == "invalid_credential"
        assert await code(access, bearer("")) == "invalid_credential"
        assert await code(access, bearer("lp-wrong")) == "invalid_credential"
        assert await code(access, bearer("lp-late")) == "invalid_credential"
    assert counted(engine) == {"missing": 2, "unknown": 1, "lapsed": 1}


async def test_a_key_issued_a_moment_ago_is_found(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_REFRESH_S", 0.05)
    async with writing(engine) as writer:
        issued = Issued()
        access = Access(ring(), issued, writer, Clock())
        await access.refresh()
        issued.add("lp-new")
        assert await code(access, bearer("lp-new")) == "id-lp-new"


async def test_wrong_keys_share_their_look_at_the_store(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        access = Access(ring(), issued, writer, Clock())
        answers = await asyncio.gather(*(code(access, bearer(f"lp-{n}")) for n in range(50)))
        assert set(answers) == {"invalid_credential"}
        assert issued.reads == 1
    assert counted(engine) == {"unknown": 50}


async def test_a_store_that_is_down_is_no_wrong_key(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_REFRESH_S", 0.0)
    async with writing(engine) as writer:
        issued = Issued()
        issued.down = True
        access = Access(ring(), issued, writer, Clock())
        with pytest.raises(ProxyError) as refused:
            await access.identify(bearer("lp-issued"))
        assert refused.value.kind is Kind.STORE_UNAVAILABLE
        assert await code(access, bearer("lp-fixed")) == "cfg"
        issued.down = False
        issued.add("lp-issued")
        assert await code(access, bearer("lp-issued")) == "id-lp-issued"
    assert counted(engine) == {}


async def test_revoked_keys_stop_working_and_an_outage_ends_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "_REFRESH_S", 0.01)
    async with writing(engine) as writer:
        issued = Issued()
        issued.add("lp-1")
        access = Access(ring(), issued, writer, Clock())
        fresh = asyncio.create_task(access.keep_fresh())
        try:
            assert await code(access, bearer("lp-1")) == "id-lp-1"
            issued.down = True
            with pytest.raises(ProxyError, match="store"):
                await access.refresh()
            assert await code(access, bearer("lp-1")) == "id-lp-1"
            issued.down = False
            issued.keys.clear()
            issued.add("lp-1", revoked_us=NOW)
            await access.refresh()
            assert await code(access, bearer("lp-1")) == "invalid_credential"
            assert not fresh.done()
        finally:
            fresh.cancel()
