"""An issuer's key set: rotated, down, slow, huge, broken; and never asked for too often."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity import fetching, keyfetch, keysets
from llm_proxy.identity.access import TokenRefused
from llm_proxy.identity.fetching import Unreadable
from llm_proxy.identity.keyfetch import AddressSource, FileSource, Source, fresh_for
from llm_proxy.identity.tokens import SignedTokens
from tests.issuers import Jwks, SigningKey, claims, private_authority, serving, signing_key, token
from tests.proxy import until
from tests.unit.test_identity_tokens import AGENTS, issuer

OLD, NEW, STRANGER = signing_key("old"), signing_key("new"), signing_key("stranger")


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def of(source: Source, watch: Watch | None = None) -> SignedTokens:
    now_us = lambda: time.time_ns() // 1000  # noqa: E731 (one expression)
    return SignedTokens([(issuer(), source)], AGENTS, now_us, watch or Watch())


async def shown(tokens: SignedTokens, key: SigningKey, **told: Any) -> str:
    """`ok`, or the reason or the error's code."""
    try:
        await tokens.caller(token(key, claims(jti=os.urandom(8).hex(), **told)))
    except TokenRefused as refused:
        return refused.reason
    except ProxyError as error:
        return error.kind.value if error.retryable and error.retry_after_s else "not to be retried"
    return "ok"


@contextmanager
def kept_fresh(tokens: SignedTokens) -> Generator[None]:
    """The background task of a worker."""
    task = asyncio.create_task(tokens.keep_fresh())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()


async def test_a_key_that_came_in_is_looked_for_and_one_that_went_is_forgotten() -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        tokens = of(AddressSource(jwks.url), watch)
        assert [await shown(tokens, OLD), await shown(tokens, OLD)] == ["ok", "ok"]
        assert len(jwks.asked) == 1
        watch.now += 10
        jwks.keys = [OLD, NEW]
        assert [await shown(tokens, NEW), await shown(tokens, OLD)] == ["ok", "ok"]
        assert len(jwks.asked) == 2
        kept = token(OLD)
        await tokens.caller(kept)
        jwks.keys = [NEW]
        watch.now += 10
        assert await shown(tokens, STRANGER) == "unknown_signing_key"
        with pytest.raises(TokenRefused, match="unknown_signing_key"):
            await tokens.caller(kept)  # it was checked by a key that is gone, so it's checked anew
        assert len(jwks.asked) == 3


async def test_unknown_kids_ask_the_issuer_once_in_ten_seconds_however_many_come() -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        tokens = of(AddressSource(jwks.url), watch)
        assert await shown(tokens, OLD) == "ok"
        for seconds, asked in ((0, 1), (9, 1), (1, 2), (5, 2), (5, 3)):
            watch.now += seconds
            answers = await asyncio.gather(*(shown(tokens, STRANGER) for _ in range(100)))
            assert set(answers) == {"unknown_signing_key"}
            assert len(jwks.asked) == asked


async def test_nobody_is_told_401_while_the_keys_were_never_read() -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        jwks.status = 500
        tokens = of(AddressSource(jwks.url), watch)
        assert {await shown(tokens, OLD), await shown(tokens, STRANGER)} == {"issuer_unavailable"}
        assert len(jwks.asked) == 1  # the second was within a second of the first
        jwks.status = 200
        watch.now += 1
        assert await shown(tokens, OLD) == "ok"


async def test_an_outage_leaves_the_last_good_keys_for_a_day() -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        tokens = of(AddressSource(jwks.url), watch)
        assert await shown(tokens, OLD) == "ok"
        jwks.status = 503
        watch.now += keysets.STALE_S - 1
        assert await shown(tokens, OLD) == "ok"
        assert await shown(tokens, OLD, exp=1, iat=None) == "expired"
        assert await shown(tokens, NEW) == "issuer_unavailable"  # it may be new: who can say?
        watch.now += 1
        assert await shown(tokens, OLD) == "issuer_unavailable"
        jwks.status = 200
        watch.now += 1
        assert await shown(tokens, OLD) == "ok"


async def _unreadable(source: Source) -> str:
    with pytest.raises(Unreadable) as caught:
        await source.fetch()
    return str(caught.value)


def _entries(n: int) -> bytes:
    return json.dumps({"keys": [OLD.jwk] * n}).encode()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JWK set"),
        (b'{"keys": {}}', "no JWK set"),
        (b'{"jwks": []}', "no JWK set"),
        (_entries(101), "more than 100 keys"),
        (b" " * (fetching.MAX_BYTES + 1), "over 512 KiB"),
    ],
    ids=["empty", "html", "utf-16", "nested", "list", "object", "other", "many", "huge"],
)
async def test_what_is_no_key_set_says_so_and_replaces_none(raw: bytes, says: str) -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        source = AddressSource(jwks.url)
        tokens = of(source, watch)
        assert await shown(tokens, OLD) == "ok"
        jwks.raw = raw
        assert says in await _unreadable(source)
        watch.now += 10
        assert [await shown(tokens, NEW), await shown(tokens, OLD)] == ["issuer_unavailable", "ok"]


async def test_an_issuer_that_takes_all_its_keys_back_is_believed() -> None:
    watch = Watch()
    async with serving(OLD) as jwks:
        tokens = of(AddressSource(jwks.url), watch)
        assert await shown(tokens, OLD) == "ok"
        jwks.keys = []
        watch.now += 10
        assert await shown(tokens, NEW) == "unknown_signing_key"
        assert await shown(tokens, OLD) == "unknown_signing_key"


async def test_what_the_address_may_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    async with serving(OLD) as jwks, serving(STRANGER) as other:
        source = AddressSource(jwks.url)
        jwks.status, jwks.headers = 302, {"location": other.url}
        assert "redirects" in await _unreadable(source)
        assert other.asked == []
        jwks.status, jwks.headers = 404, {}
        assert await _unreadable(source) == "answers 404"
        jwks.status, jwks.headers = 200, {"content-encoding": "gzip"}
        assert "compressed" in await _unreadable(source)
        jwks.headers, jwks.wait_s = {}, 5.0
        began = time.perf_counter()
        assert "no answer within 0.2 s" in await _unreadable(source)
        assert time.perf_counter() - began < 2
    assert "can't be reached: ClientConnectorError" in await _unreadable(source)


async def test_a_slow_issuer_holds_up_only_who_needs_it_and_is_asked_once() -> None:
    async with serving(OLD) as jwks:
        jwks.wait_s = 0.3
        tokens = of(AddressSource(jwks.url))
        waiting = [asyncio.create_task(shown(tokens, OLD)) for _ in range(20)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()  # the first to ask leaves: the others still get their answer
        answers = await asyncio.gather(*waiting[1:])
        assert set(answers) == {"ok"}
        assert len(jwks.asked) == 1
        with suppress(asyncio.CancelledError):
            await waiting[0]


async def test_keys_are_read_at_the_start_and_again_before_they_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfetch, "LEAST_FRESH_S", 0.1)
    async with serving(OLD) as jwks:
        jwks.headers = {"cache-control": "max-age=0"}
        tokens = of(AddressSource(jwks.url))
        with kept_fresh(tokens):
            await until(lambda: len(jwks.asked) >= 3, "the keys were read three times")
            jwks.keys = [NEW]
            before = len(jwks.asked)
            await until(lambda: len(jwks.asked) >= before + 2, "the new keys were read")
            assert await shown(tokens, NEW) == "ok"
            assert await shown(tokens, OLD) == "unknown_signing_key"


async def test_a_failing_issuer_is_asked_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysets, "RETRY_S", 0.05)
    monkeypatch.setattr(keysets, "MOST_RETRY_S", 0.15)
    async with serving(OLD) as jwks:
        jwks.status = 500
        with kept_fresh(of(AddressSource(jwks.url))):
            await until(lambda: len(jwks.at) >= 5, "it was asked five times")
        gaps = [later - earlier for earlier, later in pairwise(jwks.at)]
        assert all(gap > 0.95 * least for gap, least in zip(gaps, (0.05, 0.1, 0.15, 0.15), strict=False))


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    watch, path = Watch(), tmp_path / "keys.json"
    path.write_bytes(Jwks([OLD]).body())
    source = FileSource(path)
    tokens = of(source, watch)
    with kept_fresh(tokens):
        assert await shown(tokens, OLD) == "ok"
        replacement = tmp_path / "new.json"
        replacement.write_bytes(Jwks([NEW]).body())
        replacement.replace(path)
        watch.now += 1
        assert await shown(tokens, NEW) == "ok"
        assert await shown(tokens, OLD) == "unknown_signing_key"
        path.write_text("half of a fi")
        watch.now += 1
        assert await shown(tokens, STRANGER) == "issuer_unavailable"
        assert await shown(tokens, NEW) == "ok"
        path.unlink()
        assert "can't be read: No such file" in await _unreadable(source)


async def test_a_file_that_stays_the_same_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    really = keyfetch.read_key_file

    def counted(path: Path) -> object:
        read.append(path)
        return really(path)

    monkeypatch.setattr(keyfetch, "read_key_file", counted)
    path = tmp_path / "keys.json"
    path.write_bytes(Jwks([OLD]).body())
    source = FileSource(path)
    first, second = (await source.fetch()).keys, (await source.fetch()).keys
    assert first is second
    assert len(read) == 1


async def test_a_cluster_s_api_server_is_asked_with_the_token_of_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    async with serving(OLD) as jwks:
        source = AddressSource(jwks.url, token=path)
        await source.fetch()
        path.write_text("second\n")
        await source.fetch()
        assert [asked["authorization"] for asked in jwks.asked] == ["Bearer first", "Bearer second"]
        path.write_text("two\nlines\n")
        assert "holds no token" in await _unreadable(source)
        path.unlink()
        assert "can't be reached: FileNotFoundError" in await _unreadable(source)
        assert len(jwks.asked) == 2


async def test_a_private_authority_is_known_by_its_file_alone(tmp_path: Path) -> None:
    ca, tls = private_authority(tmp_path)
    async with serving(OLD, tls=tls) as jwks:
        assert jwks.url.startswith("https://")
        assert (
            await _unreadable(AddressSource(jwks.url)) == "can't be reached: ClientConnectorCertificateError"
        )
        assert (await AddressSource(jwks.url, ca=ca).fetch()).keys.keys[0].id == "old"
        other = tmp_path / "other.pem"
        other.write_text("no certificate")
        assert "can't be reached: SSLError" in await _unreadable(AddressSource(jwks.url, ca=other))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 300),
        ({"cache-control": "public, max-age=900"}, 900),
        ({"cache-control": "max-age=900", "age": "200"}, 700),
        ({"cache-control": "s-maxage=5"}, 300),
        ({"cache-control": "max-age=1"}, 60),
        ({"cache-control": "max-age=31536000, immutable"}, 3600),
        ({"cache-control": "no-store"}, 60),
        ({"cache-control": "no-cache, max-age=600"}, 60),
        ({"cache-control": "max-age=99999999999999999999"}, 3600),
        ({"cache-control": "max-age=soon", "age": "x"}, 300),
    ],
)
def test_how_long_a_set_is_fresh(headers: dict[str, str], seconds: float) -> None:
    assert fresh_for(headers) == seconds


def test_the_answer_for_what_can_not_be_told_is_a_503() -> None:
    assert ProxyError(Kind.ISSUER_UNAVAILABLE, "x").status == 503
