"""Signing in by OIDC, through the real proxy and a provider on a real socket: who gets in, who doesn't."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from llm_proxy.config import load_config
from llm_proxy.config.choices import Role
from llm_proxy.console.oidc import BACK, BEGIN, COOKIE
from llm_proxy.console.people import People
from llm_proxy.records.console_tables import sessions, used_sign_ins
from tests.console.house import PEOPLE, Browser, House, house
from tests.console.oidc_flow import allowed, begun, by_public_key, changed, signed_in, unsigned
from tests.issuers import signing_key, token
from tests.oidc_provider import KEY, Provider, providing
from tests.proxy import ORIGIN, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
INVESTIGATOR = "investigator@example.com"
DANA = "dana-token-0123456789"
POLICY: dict[str, Any] = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replace",
    "tools": {"refund": {"effect": "write", "tier": "human-approval"}},
    "approvals": {"default": {"approvers": ["group:leads"], "quorum": 2, "expires_s": 900, "hold_s": 60}},
}
MORE: list[dict[str, Any]] = [
    {"id": "dana@example.com", "roles": ["admin"], "groups": ["leads"], "token": DANA},
    {"id": "erin@example.com", "roles": ["approver"], "groups": ["leads"]},
    {"id": "renamed", "roles": ["investigator"], "oidc": "old|name@example.com"},
    {"id": "gina", "oidc": "gina@example.com"},
    {"id": "roleless@example.com"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    async with providing() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncIterator[House]:
    oidc = provider.config | {"roles": {"finance": ["spend-reader"], "auditors": ["investigator"]}}
    server = {"public_url": ORIGIN}
    folder = tmp_path_factory.mktemp("oidc")
    async with house(folder, oidc=oidc, server=server, operators=MORE, policy=POLICY) as built:
        yield built


@pytest.fixture(autouse=True)
def honest(provider: Provider) -> None:
    provider.reset()


async def _nobody_is(browser: Browser) -> None:
    assert (await browser.get("/console")).status == 303


async def test_a_person_signs_in_sees_a_page_and_signs_out(house: House, provider: Provider) -> None:
    provider.person["email"] = INVESTIGATOR
    async with house.browser(None) as browser:
        page = await browser.get("/console/signin?to=%2Fconsole%2Fruns%3Fagent%3Dbot")
        assert "Sign in with Acme SSO" in page.text
        assert f'href="{house.proxy.origin}{BEGIN}?to=%2Fconsole%2Fruns%3Fagent%3Dbot"' in page.text
        asked = await browser.get(f"{BEGIN}?to=%2Fconsole%2Fruns%3Fagent%3Dbot")
        cookie = asked.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=lax", "Path=/console/signin", "Max-Age=600", f"{COOKIE}="):
            assert part in cookie
        told = parse_qs(urlsplit(asked.headers["location"]).query)
        assert told["redirect_uri"] == [house.proxy.origin + BACK]
        assert len({*told["state"], *told["nonce"], *told["code_challenge"]}) == 3
        entered = await browser.get(await allowed(asked.headers["location"]))
        assert entered.status == 200
        assert 'http-equiv="refresh" content="0; url=/console/runs?agent=bot"' in entered.text
        given = entered.headers.getall("set-cookie")  # type: ignore[attr-defined]
        assert any("SameSite=strict" in one and "Path=/console;" in one for one in given)
        assert any(one.startswith(f'{COOKIE}=""') and "Max-Age=0" in one for one in given)
        shown = await browser.get("/console/runs?agent=bot")
        assert (shown.status, INVESTIGATOR in shown.text) == (200, True)
        assert (await browser.get("/console/audit")).status == 200
        assert (await browser.send("/console/signout")).status == 303
        await _nobody_is(browser)


async def test_signing_in_anew_ends_the_session_before(house: House, provider: Provider) -> None:
    provider.person["email"] = INVESTIGATOR
    async with house.browser(DANA) as browser, house.browser(None) as other:
        before = {"cookie": f"llm_proxy_session={browser.secret}"}
        assert (await other.get("/console", **before)).status == 200
        await begun(browser)
        assert (await other.get("/console", **before)).status == 303


async def test_by_token_and_by_oidc_one_is_the_same_operator(house: House, provider: Provider) -> None:
    provider.person["email"] = INVESTIGATOR
    async with house.browser(None) as one, house.browser(PEOPLE[Role.INVESTIGATOR]) as two:
        await signed_in(one)
        for browser in (one, two):
            assert f">{INVESTIGATOR}</span>" in (await browser.get("/console")).text
    with house.proxy.engine.connect() as connection:
        rows = connection.execute(sessions.select().where(sessions.c.operator == INVESTIGATOR)).all()
    assert len({row.credential for row in rows}) == 2


async def test_one_person_is_one_of_two_however_they_sign_in(house: House, provider: Provider) -> None:
    agent = asyncio.create_task(house.call("A <refund>, please.", "two-people"))
    async with house.browser(DANA) as token, house.browser(None) as oidc, house.browser(None) as second:
        await signed_in(oidc)
        provider.person["email"] = "erin@example.com"
        await signed_in(second)
        path = await _approval(token)
        approve = {"decision": "approve", "reason": "The parcel came back."}
        assert (await token.send(path, **approve)).status == 303
        again = await oidc.send(path, **approve)
        assert (again.status, "dana@example.com" in again.text) == (409, True), again.text
        assert not agent.done()
        assert (await second.send(path, **approve)).status == 303
        await asyncio.wait_for(agent, 10)
        told = (await second.get(path)).text
        assert "erin@example.com" in told
        assert ">approved</span>" in told


async def _approval(browser: Browser) -> str:
    found: list[str] = []

    async def there() -> bool:
        found[:] = re.findall(
            r'href="(/console/approvals/[^"?]+)"', (await browser.get("/console/approvals")).text
        )
        return bool(found)

    await until(there, "an approval waits")
    return found[0]


async def test_an_operator_may_have_another_name_there(house: House, provider: Provider) -> None:
    provider.person["email"] = "old|name@example.com"
    async with house.browser(None) as browser:
        await signed_in(browser)
        assert ">renamed</span>" in (await browser.get("/console")).text


@pytest.mark.parametrize("groups", [["staff", "finance"], "finance", ["finance", 7, {"a": 1}]])
async def test_a_group_gives_a_role(house: House, provider: Provider, groups: object) -> None:
    provider.person |= {"email": "fiona@example.com", "groups": groups}
    async with house.browser(None) as browser:
        await signed_in(browser)
        shown = await browser.get("/console/agents")
        assert (shown.status, ">fiona@example.com</span>" in shown.text) == (200, True)
        assert (await browser.get("/console/audit")).status == 403


async def test_what_only_userinfo_tells_counts_too(house: House, provider: Provider) -> None:
    del provider.person["email"]
    provider.beside = {"email": "fiona@example.com", "groups": ["auditors"]}
    async with house.browser(None) as browser:
        await signed_in(browser)
        assert (await browser.get("/console/audit")).status == 200
    provider.beside["sub"] = "u-2"
    async with house.browser(None) as browser:
        refused = await signed_in(browser)
        assert (refused.status, "another person" in refused.text) == (401, True)
        await _nobody_is(browser)


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"email": "stranger@example.com"}, "stranger@example.com has no role here"),
        ({"email": "stranger@example.com", "groups": ["staff"]}, "has no role here"),
        ({"email": "roleless@example.com", "groups": ["finance"]}, "has no role here"),
        ({"email": "DANA@example.com"}, "has no role here"),
        ({"email": "renamed", "groups": ["finance"]}, "has no role here"),
        ({"email": "admin_token", "groups": ["finance"]}, "has no role here"),
        ({"email": "two words", "groups": ["finance"]}, "has no role here"),
        ({"email": "dana@example.com", "email_verified": False}, "verify it there first"),
        ({"email": "dana@example.com", "email_verified": "true"}, "verify it there first"),
        ({"email": ["dana@example.com"]}, "say who you are"),
        ({"email": None}, "say who you are"),
        ({"email": "dana@example.com\u202e"}, "say who you are"),
    ],
)
async def test_who_has_no_role_is_told_so(
    house: House, provider: Provider, claims: dict[str, Any], says: str
) -> None:
    provider.person |= claims
    async with house.browser(None) as browser:
        refused = await signed_in(browser)
        assert (refused.status, says in refused.text) == (403, True), refused.text
        await _nobody_is(browser)


NOW = int(time.time())


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"nonce": "another"}, "another sign-in (nonce)"),
        ({"nonce": None}, "another sign-in (nonce)"),
        ({"aud": "another"}, "isn't for this proxy (aud)"),
        ({"aud": None}, "isn't for this proxy (aud)"),
        ({"aud": ["llm-proxy console", "another"]}, "isn't for this proxy (aud)"),
        ({"azp": "another"}, "issued to another (azp)"),
        ({"iss": "https://elsewhere.example"}, "of another issuer (iss)"),
        ({"iss": None}, "of another issuer (iss)"),
        ({"exp": NOW - 60, "iat": NOW - 120}, "expired"),
        ({"exp": None}, "no exp"),
        ({"iat": None}, "when it was issued (iat)"),
        ({"iat": NOW + 10**6, "exp": NOW + 2 * 10**6}, "not valid yet"),
        ({"sub": None}, "whom it&#39;s about (sub)"),
    ],
)
async def test_an_id_token_that_says_something_else_lets_nobody_in(
    house: House, provider: Provider, says: dict[str, Any], why: str
) -> None:
    provider.says = says
    async with house.browser(None) as browser:
        refused = await signed_in(browser)
        assert (refused.status, why in refused.text.replace("&#39;t", "'t")) == (401, True), refused.text
        await _nobody_is(browser)


@pytest.mark.parametrize(
    ("sign", "why"),
    [
        (unsigned, "not signed by one of"),
        (by_public_key, "not signed by one of"),
        (changed, "signature isn't the provider's"),
        (lambda told: token(signing_key("provider-1", "ES256"), told), "no key that fits"),
        (lambda told: token(signing_key("stranger"), told), "no key that fits"),
        (lambda told: token(signing_key("stranger"), told, kid=KEY.id), "signature isn't the provider's"),
        (lambda told: token(KEY, told, typ="logout+jwt"), "for something else"),
        (lambda _: "", "not three base64url parts"),
    ],
)
async def test_an_id_token_that_isnt_the_providers_lets_nobody_in(
    house: House, provider: Provider, sign: Callable[[dict[str, Any]], str], why: str
) -> None:
    provider.sign = sign
    async with house.browser(None) as browser:
        refused = await signed_in(browser)
        assert (refused.status, why in refused.text.replace("&#39;", "'")) == (401, True), refused.text
        await _nobody_is(browser)


async def test_a_token_for_others_too_is_taken_if_it_was_issued_to_us(
    house: House, provider: Provider
) -> None:
    provider.says = {"aud": ["another", "llm-proxy console"], "azp": "llm-proxy console"}
    async with house.browser(None) as browser:
        assert (await signed_in(browser)).status == 200


async def test_another_state_does_nothing(house: House, provider: Provider) -> None:
    async with house.browser(None) as browser:
        back = await allowed(await begun(browser))
        code = parse_qs(urlsplit(back).query)["code"][0]
        provider.asked.clear()
        for query in (
            f"code={code}",
            f"code={code}&state=",
            f"code={code}&state=wrong",
            f"code={code}&state=%C3%BC",
            f"{urlsplit(back).query}&state=again",
        ):
            refused = await browser.get(f"{BACK}?{query}")
            assert (refused.status, "no sign-in of this browser" in refused.text) == (400, True)
            assert "set-cookie" not in refused.headers
        assert provider.asked == [], "the provider was asked for a code that nobody here wanted"
        assert (await browser.get(back)).status == 200, "the sign-in that goes on in this browser was ended"


async def test_what_another_browser_began_signs_nobody_in(house: House) -> None:
    async with house.browser(None) as attacker, house.browser(None) as victim:
        back = await allowed(await begun(attacker))
        assert (await victim.get(back)).status == 400, "without any cookie"
        await begun(victim)
        assert (await victim.get(back)).status == 400, "with a cookie of its own"
        await _nobody_is(victim)


async def test_a_sign_in_is_used_once(house: House, provider: Provider) -> None:
    async with house.browser(None) as browser:
        address = await begun(browser)
        cookie = {"cookie": f"{COOKIE}={browser.secret}"}
        assert (await browser.get(await allowed(address))).status == 200
        assert (await browser.get(await allowed(address))).status == 400, "its cookie is gone"
    async with house.browser(None) as again:
        refused = await again.get(await allowed(address), **cookie)
        assert (refused.status, "was used before" in refused.text) == (400, True)
        await _nobody_is(again)
    state = parse_qs(urlsplit(address).query)["state"][0]
    with house.proxy.engine.connect() as connection:
        rows = connection.execute(used_sign_ins.select()).all()
    assert hashlib.sha256(state.encode()).hexdigest() in {row.sha256 for row in rows}


async def test_a_cookie_that_was_changed_fits_nothing(house: House) -> None:
    async with house.browser(None) as browser:
        back = await allowed(await begun(browser))
        secret, begun_us, to = browser.secret.split(".")
    later, early = int(begun_us) + 1, int(begun_us) - 601_000_000
    for other_cookie in (
        f"{secret}.{later}.{to}",
        f"{secret}.{early}.{to}",
        f"{secret}.{begun_us}.",
        "x",
        "",
    ):
        async with house.browser(None) as other:
            refused = await other.get(back, cookie=f"{COOKIE}={other_cookie}")
            assert refused.status == 400, other_cookie


@pytest.mark.parametrize(
    "to",
    ["https://elsewhere.example", "//elsewhere.example", "/v1/models", "javascript:alert(1)", "/consoles"],
)
async def test_it_leads_to_no_other_place(house: House, to: str) -> None:
    async with house.browser(None) as browser:
        entered = await signed_in(browser, to)
        assert 'content="0; url=/console"' in entered.text
        assert "elsewhere" not in entered.text


async def test_a_provider_that_refuses(house: House, provider: Provider) -> None:
    async with house.browser(None) as browser:
        state = parse_qs(urlsplit(await begun(browser)).query)["state"][0]
        refused = await browser.get(f"{BACK}?error=access_denied&error_description=Call+555&state={state}")
        assert (refused.status, "refused, or you did" in refused.text) == (403, True)
        assert "555" not in refused.text
        for query, status in (("code=made-up", 400), ("code=", 400), ("", 400), ("code=a&code=b", 400)):
            state = parse_qs(urlsplit(await begun(browser)).query)["state"][0]
            assert (await browser.get(f"{BACK}?{query}&state={state}")).status == status, query
        back = await allowed(await begun(browser))
        answer = await browser.get(back.replace("iss=", "iss=https%3A%2F%2Felsewhere.example%23"))
        assert (answer.status, "another provider" in answer.text) == (400, True)
        await _nobody_is(browser)


async def test_a_session_ends_with_what_made_it(house: House, provider: Provider) -> None:
    provider.person |= {"email": "fiona@example.com", "groups": ["finance"]}
    async with house.browser(None) as browser:
        await signed_in(browser)
        assert (await browser.get("/console")).status == 200
        mine = sessions.c.sha256 == hashlib.sha256(browser.secret.encode()).hexdigest()
        for other_row in (
            {"groups": '["auditors"]'},
            {"groups": "[]"},
            {"operator": "dana@example.com"},
            _by_group(house, "gina@example.com"),
        ):
            with house.proxy.engine.connect() as connection, connection.begin():
                row = connection.execute(sessions.select().where(mine)).one()
                connection.execute(sessions.update().where(mine).values(other_row))
            await _nobody_is(browser)
            before = {name: getattr(row, name) for name in other_row}
            with house.proxy.engine.connect() as connection, connection.begin():
                connection.execute(sessions.update().where(mine).values(before))
        assert (await browser.get("/console")).status == 200


def _by_group(house: House, who: str) -> dict[str, str]:
    """What a session was opened with by somebody who wasn't listed as yet."""
    config = load_config(house.folder / "proxy.yaml", os.environ)
    people = People(config.model_copy(update={"operators": ()}))
    found = people.by_claims({"email": who, "groups": ["finance"]})
    assert people.still(who, found.digest, found.groups) is not None
    return {"operator": who, "credential": found.digest}
