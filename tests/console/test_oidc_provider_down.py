"""A provider that is down, or is the only way in: what people are told, and who still gets in."""

from __future__ import annotations

from pathlib import Path

from llm_proxy.console.oidc import BEGIN
from tests.console.house import House, house
from tests.console.oidc_flow import allowed, begun, signed_in
from tests.oidc_provider import Provider, providing
from tests.proxy import ORIGIN, until


async def test_tokens_go_on_while_the_provider_is_down(tmp_path: Path) -> None:
    async with providing(client_secret=None) as provider:
        server, oidc = {"public_url": ORIGIN}, provider.config | {"roles": {"staff": ["spend-reader"]}}
        provider.person |= {"groups": ["staff"]}
        provider.status = 503
        async with house(tmp_path, server=server, oidc=oidc) as built:
            await _down(built)
            await _back(built, provider)
            await _refusals_shut_nobody_out(built, provider)


async def _down(built: House) -> None:
    async with built.browser(None) as browser:
        assert (await browser.get("/console/signin")).status == 200, "the page itself asks nobody"
        refused = await browser.get(BEGIN)
        assert (refused.status, "Acme SSO: the provider answers 503" in refused.text) == (503, True)
        assert "set-cookie" not in refused.headers
    async with built.browser() as browser:
        assert (await browser.get("/console")).status == 200


async def _back(built: House, provider: Provider) -> None:
    provider.status = 200
    async with built.browser(None) as browser:

        async def asked() -> bool:
            return (await browser.get(BEGIN)).status == 303

        await until(asked, "the provider is asked again")
        back = await allowed(await begun(browser))
        provider.document = {"issuer": "https://elsewhere.example"}
        assert (await browser.get(back)).status == 200, "by the endpoints that are known, as a public client"
        assert ">dana@example.com</span>" in (await browser.get("/console")).text


async def _refusals_shut_nobody_out(built: House, provider: Provider) -> None:
    provider.reset()
    provider.person |= {"groups": ["staff"]}
    provider.says = {"nonce": "another"}
    async with built.browser(None) as browser:
        assert {(await signed_in(browser)).status for _ in range(61)} == {401}
        provider.says = {}
        assert (await signed_in(browser)).status == 200


async def test_without_any_token_there_is_one_way_in(tmp_path: Path) -> None:
    async with providing() as provider:
        oidc = provider.config | {"roles": {"staff": ["admin"]}}
        provider.person |= {"groups": ["staff"]}
        server = {"public_url": ORIGIN, "admin_token": ""}
        async with (
            house(tmp_path, server=server, oidc=oidc, people={}) as built,
            built.browser(None) as browser,
        ):
            page = (await browser.get("/console/signin")).text
            assert "Sign in with Acme SSO" in page
            assert 'name="credential"' not in page
            assert (await browser.sign_in("anything")).status == 403
            await signed_in(browser)
            assert (await browser.get("/console/audit")).status == 200
            answer = await browser.get("/admin/agents", authorization="Bearer access-1")
            assert answer.status == 403, "the provider's tokens open nothing at /admin"
