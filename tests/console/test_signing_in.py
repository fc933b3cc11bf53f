"""Sessions of the console: who gets one, how it ends, and that no other site's form does anything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import update

from llm_proxy.config.choices import Role
from llm_proxy.console.oidc import BACK, BEGIN
from llm_proxy.console.visit import COOKIE
from llm_proxy.records.console_tables import sessions
from tests.console.house import ADMIN, PEOPLE, House, house
from tests.proxy import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("console")) as built:
        yield built


async def test_an_operator_signs_in_and_out(house: House) -> None:
    async with house.browser(None) as browser:
        first = await browser.get("/console/spend?by=agent")
        assert (first.status, first.headers["location"]) == (
            303,
            "/console/signin?to=%2Fconsole%2Fspend%3Fby%3Dagent",
        )
        taken = await browser.sign_in(ADMIN, "/console/spend?by=agent")
        assert (taken.status, taken.headers["location"]) == (303, "/console/spend?by=agent")
        cookie = taken.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=strict", "Path=/console", f"{COOKIE}="):
            assert part in cookie
        assert (await browser.get("/console/spend")).status == 200
        secret = browser.secret
        assert (await browser.send("/console/signout")).status == 303
    async with house.browser(None) as again:
        told = {"cookie": f"{COOKIE}={secret}"}
        assert (await again.get("/console", **told)).status == 303, "the session lived on without its cookie"


async def test_only_hashes_of_sessions_are_stored(house: House) -> None:
    async with house.browser() as browser:
        secret = browser.secret
    with house.proxy.engine.connect() as connection:
        rows = connection.execute(sessions.select()).all()
    assert rows
    assert not any(secret in str(value) for row in rows for value in row)


@pytest.mark.parametrize("token", ["", "wrong", KEY, f"sha256:{'0' * 64}"])
async def test_others_are_not_let_in(house: House, token: str) -> None:
    async with house.browser(None) as browser:
        refused = await browser.sign_in(token)
        assert refused.status == 401
        assert "No operator has this token" in refused.text
        assert "set-cookie" not in refused.headers
        assert token not in refused.text or not token


@pytest.mark.parametrize(
    "to",
    [
        "https://elsewhere.example",
        "//elsewhere.example",
        "/\\elsewhere.example",
        "/console\\@x",
        "/v1/models",
        "/consoles",
        "javascript:alert(1)",
        "/console/\r\nset-cookie: a=b",
    ],
)
async def test_signing_in_leads_to_no_other_place(house: House, to: str) -> None:
    async with house.browser(None) as browser:
        assert (await browser.sign_in(ADMIN, to)).headers["location"] == "/console"


async def test_a_session_ends_by_time(house: House) -> None:
    async with house.browser() as browser:
        assert (await browser.get("/console")).status == 200
        with house.proxy.engine.connect() as connection, connection.begin():
            connection.execute(update(sessions).values(expires_us=1))
        assert (await browser.get("/console")).status == 303


async def test_a_session_ends_with_what_it_was_opened_with(house: House) -> None:
    async with house.browser(PEOPLE[Role.INVESTIGATOR]) as browser:
        assert (await browser.get("/console")).status == 200
        with house.proxy.engine.connect() as connection, connection.begin():
            connection.execute(update(sessions).values(credential="0" * 64))
        assert (await browser.get("/console")).status == 303


@pytest.mark.parametrize(
    "told",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site", "origin": "http://elsewhere.example"},
    ],
)
async def test_forms_of_other_sites_do_nothing(house: House, told: dict[str, str]) -> None:
    async with house.browser() as browser:
        token = await browser.form_token()
        answer = await browser.post("/console/agents/bot/freeze", {"token": token, "reason": "x"}, **told)
        assert answer.status == 403
        assert (await browser.post("/console/signin", {"credential": ADMIN}, **told)).status == 403
        assert "frozen" not in (await browser.get("/console/agents")).text


async def test_a_form_of_another_session_does_nothing(house: House) -> None:
    async with house.browser() as one, house.browser() as two:
        token = await two.form_token()
        for sent in (token, "", "0" * 64, "ü"):
            answer = await one.post("/console/agents/bot/freeze", {"token": sent, "reason": "x"})
            assert answer.status == 403
        assert "frozen" not in (await one.get("/console/agents")).text


async def test_a_link_from_elsewhere_is_opened_again_from_here(house: House) -> None:
    async with house.browser(None) as browser:
        answer = await browser.get("/console/spend", **{"sec-fetch-site": "cross-site"})
        assert answer.status == 200
        assert 'http-equiv="refresh"' in answer.text
        assert (await browser.get("/console/spend", **{"sec-fetch-site": "same-origin"})).status == 303


async def test_every_page_has_the_headers(house: House) -> None:
    async with house.browser() as browser:
        for path in ("/console", "/console/signin", "/console/nowhere", "/console/spend"):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy
            assert "unsafe-eval" not in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "<script>" not in answer.text
            assert " style=" not in answer.text


async def test_where_oidc_is_off_nothing_of_it_is_there(house: House) -> None:
    async with house.browser() as browser:
        for path in (BEGIN, BACK):
            assert (await browser.get(path)).status == 404
        assert BEGIN not in (await browser.get("/console/signin")).text


async def test_wrong_tokens_shut_nobody_out(house: House) -> None:
    async with house.browser(None) as browser:
        assert {(await browser.sign_in("wrong")).status for _ in range(12)} == {401}
        assert (await browser.sign_in(ADMIN)).status == 303


async def test_signing_in_anew_ends_the_session_before(house: House) -> None:
    async with house.browser() as browser, house.browser(None) as other:
        before = {"cookie": f"{COOKIE}={browser.secret}"}
        assert (await other.get("/console", **before)).status == 200
        assert (await browser.sign_in("wrong")).status == 401
        assert (await other.get("/console", **before)).status == 200, "a wrong token signed somebody out"
        assert (await browser.sign_in(PEOPLE[Role.INVESTIGATOR])).status == 303
        assert (await other.get("/console", **before)).status == 303
        assert (await browser.get("/console")).status == 200
