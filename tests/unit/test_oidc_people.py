"""Who is an operator by a provider's word, for how long, and what a discovery document may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config, load_config
from llm_proxy.config.choices import Role
from llm_proxy.console.people import People, Unwelcome
from llm_proxy.identity.fetching import Unreadable
from llm_proxy.identity.provider import Client, CodeRefused, Provider, read_endpoints
from tests.oidc_provider import CLIENT_ID, SECRET, providing

ISSUER = "https://login.example.com"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": "https://keys.example.com/keys",
}


def people(folder: Path, *, token: bool = True, **oidc: Any) -> People:
    return People(config(folder, token=token, **oidc))


def config(folder: Path, *, token: bool = True, **oidc: Any) -> Config:
    dana: dict[str, Any] = {"id": "dana@example.com", "roles": ["admin"], "oidc": "u-1"}
    told = {
        "server": {"public_url": "https://llm.example.com"},
        "oidc": {"issuer": ISSUER, "client_id": "c", "claims": {"operator": "sub", "groups": "realm.groups"}}
        | {"roles": {"finance": ["spend-reader"], "auditors": ["investigator"]}}
        | oidc,
        "operators": [dana | ({"token": "dana-token-0123456789"} if token else {})],
    }
    path = folder / "proxy.yaml"
    path.write_text(json.dumps(told))
    return load_config(path, {})


def test_groups_give_their_roles_together(tmp_path: Path) -> None:
    known = people(tmp_path)
    groups = ["finance", "auditors", "staff"]
    found = known.by_claims({"sub": "fiona", "realm": {"groups": groups}})
    assert found.operator.roles == {Role.SPEND_READER, Role.INVESTIGATOR}
    assert found.groups == ("auditors", "finance")
    assert known.still("fiona", found.digest, found.groups) == found
    for other in ("omar", "dana@example.com", "admin_token"):
        assert known.still(other, found.digest, found.groups) is None


def test_nobody_takes_an_operators_id_by_a_group(tmp_path: Path) -> None:
    known = people(tmp_path)
    for value in ("dana@example.com", "admin_token"):
        with pytest.raises(Unwelcome):
            known.by_claims({"sub": value, "realm": {"groups": ["finance"]}})


def test_token_and_oidc_are_one_operator_and_two_credentials(tmp_path: Path) -> None:
    known = people(tmp_path)
    one, two = known.by_token("dana-token-0123456789"), known.by_claims({"sub": "u-1"})
    assert one is not None
    assert one.operator == two.operator
    assert one.digest != two.digest
    without = people(tmp_path, token=False)
    assert without.still("dana@example.com", one.digest, ()) is None
    assert without.still("dana@example.com", two.digest, ()) == two


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "d"},
        {"issuer": "https://elsewhere.example"},
        {"claims": {"operator": "email", "groups": "realm.groups"}},
        {"roles": {"finance": ["spend-reader", "investigator"]}},
        {"roles": {}},
    ],
)
def test_a_change_of_what_made_somebody_an_operator_ends_it(tmp_path: Path, changed: dict[str, Any]) -> None:
    found = people(tmp_path).by_claims({"sub": "fiona", "realm": {"groups": ["finance"]}})
    assert people(tmp_path, client_secret="new").still("fiona", found.digest, found.groups) == found
    assert people(tmp_path, **changed).still("fiona", found.digest, found.groups) is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"issuer": f"{ISSUER}/"}, "calls itself otherwise"),
        ({"issuer": None}, "calls itself otherwise"),
        ({"token_endpoint": "http://login.example.com/token"}, "no https address as token_endpoint"),
        ({"token_endpoint": "http://169.254.169.254/"}, "no https address as token_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "no https address as jwks_uri"),
        ({"jwks_uri": None}, "no https address as jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no https address as authorization_endpoint"),
        ({"authorization_endpoint": "https://x.example/\r\nset-cookie: a"}, "authorization_endpoint"),
        ({"authorization_endpoint": "https://u:p@x.example/"}, "authorization_endpoint"),
        ({"authorization_endpoint": "https://[x"}, "authorization_endpoint"),
        ({"userinfo_endpoint": "http://login.example.com/me"}, "userinfo_endpoint"),
    ],
)
def test_what_a_discovery_document_may_not_say(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_endpoints(json.dumps(DOCUMENT | changed).encode(), ISSUER)


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_discovery_document(raw: bytes) -> None:
    with pytest.raises(Unreadable, match="no JSON object"):
        read_endpoints(raw, ISSUER)


async def test_a_provider_is_asked_anew_once_it_may_be_back() -> None:
    now = 0.0
    async with providing() as told:
        client = Client(told.origin, CLIENT_ID, SECRET, "https://llm.example.com/back", ("openid",))
        provider = Provider(client, lambda: now)
        told.status = 500
        for _ in range(3):
            with pytest.raises(Unreadable, match="answers 500"):
                await provider.endpoints()
        assert len(told.asked) == 1, "it was asked for everybody who came"
        told.status, now = 200, 1.0
        assert (await provider.endpoints()).token == f"{told.origin}/token"
        told.status, now = 500, 300.0
        await provider.endpoints()
        assert len(told.asked) == 2
        now = 301.0
        with pytest.raises(Unreadable):
            await provider.endpoints()


@pytest.mark.parametrize(
    ("secret", "methods", "wrong"),
    [
        (SECRET, None, "another"),
        (SECRET, ["client_secret_post"], "another"),
        (SECRET, ["client_secret_post", "client_secret_basic"], "another"),
        (None, ["none"], None),
    ],
)
async def test_the_client_shows_its_secret_as_the_provider_takes_it(
    secret: str | None, methods: list[str] | None, wrong: str | None
) -> None:
    async with providing(client_secret=secret) as told:
        told.document = {"token_endpoint_auth_methods_supported": methods} if methods else {}
        for shown in (secret, wrong):
            client = Client(told.origin, CLIENT_ID, shown, "https://llm.example.com/back", ("openid",))
            with pytest.raises(CodeRefused) as refused:
                await Provider(client, lambda: 0.0).redeem("no-code", "verifier")
            assert refused.value.error == ("invalid_grant" if shown == secret else "invalid_client")
            assert secret is None or secret not in repr(client)
