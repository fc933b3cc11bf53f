"""Letting callers in: keys issued meanwhile, wrong ones counted, a store that is down is no wrong key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity import access as access_module
from llm_proxy.identity.access import Access, TokenRefused
from llm_proxy.identity.caller import Agent, Caller
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

    def __call__(self, hashes: Sequence[str]) -> list[Credential]:
        self.reads += 1
        if self.down:
            raise OperationalError("SELECT", None, Exception("no route"))
        return [key for key in self.keys if key.sha256 in hashes]

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


async def test_a_key_issued_a_moment_ago_is_found_and_then_known(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        access = Access(ring(), issued, writer, Clock())
        assert await code(access, bearer("lp-new")) == "invalid_credential"
        issued.add("lp-new")
        assert await code(access, bearer("lp-new")) == "id-lp-new"
        reads = issued.reads
        assert await code(access, bearer("lp-new")) == "id-lp-new"
        assert issued.reads == reads


async def test_wrong_keys_share_their_look_at_the_store(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        access = Access(ring(), issued, writer, Clock())
        answers = await asyncio.gather(*(code(access, bearer(f"lp-{n}")) for n in range(50)))
        assert set(answers) == {"invalid_credential"}
        assert issued.reads == 1
    assert counted(engine) == {"unknown": 50}


async def test_a_store_that_is_down_is_no_wrong_key(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_PACE_S", 0.0)
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


async def test_looks_at_the_store_are_paced_however_many_keys_are_tried(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        access = Access(ring(), issued, writer, Clock())
        began = asyncio.get_running_loop().time()
        for _ in range(5):
            await asyncio.gather(*(code(access, bearer(f"lp-{n}")) for n in range(20)))
        took = asyncio.get_running_loop().time() - began
        assert issued.reads == 5
        assert took >= 4 * access_module._PACE_S  # pyright: ignore[reportPrivateUsage]


async def test_who_gives_up_waiting_takes_nobody_along(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        issued.add("lp-1")
        access = Access(ring(), issued, writer, Clock())
        await code(access, bearer("lp-none"))
        impatient = asyncio.create_task(code(access, bearer("lp-1")))
        patient = asyncio.create_task(code(access, bearer("lp-1")))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == "id-lp-1"


class OneToken:
    """An issuer's tokens: `ey.good` is one, `ey.bad` is none that lets in, `ey.dark` can't be told."""

    def looks_like_one(self, credential: str) -> bool:
        return credential.startswith("ey.")

    async def caller(self, token: str) -> Caller:
        if token == "ey.dark":
            raise ProxyError(Kind.STORE_UNAVAILABLE, "no keys")
        if token != "ey.good":
            raise TokenRefused("bad signature", ProxyError(Kind.INVALID_CREDENTIAL, "no"))
        return Caller(Agent("bot"), "jwt:host:sub")


async def test_tokens_stand_in_for_keys(engine: Engine) -> None:
    async with writing(engine) as writer:
        issued = Issued()
        issued.add("ey.key")
        access = Access(ring(), issued, writer, Clock(), OneToken())
        assert await code(access, bearer("ey.good")) == "jwt:host:sub"
        assert await code(access, bearer("ey.bad")) == "invalid_credential"
        assert await code(access, bearer("ey.dark")) == "store_unavailable"
        assert issued.reads == 0
        assert await code(access, bearer("lp-fixed")) == "cfg"
    assert counted(engine) == {"bad signature": 1}
