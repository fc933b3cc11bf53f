"""Whom a signed token lets in: OIDC, SPIFFE and Kubernetes, users, roles and who acts for whom."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_proxy.identity import tokens as tokens_module
from llm_proxy.identity.access import TokenRefused
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.claims import AgentNames, Issuer, claim
from llm_proxy.identity.jwks import DEFAULT_ALGORITHMS
from llm_proxy.identity.keyfetch import AddressSource
from llm_proxy.identity.tokens import SignedTokens, key_id
from tests.issuers import AUDIENCE, ISSUER, Jwks, SigningKey, claims, serving, signing_key, token

RSA = signing_key("rsa-1")
AGENTS = {name: Agent(name) for name in ("bot", "triage-bot", "planner")}


def issuer(name: str = ISSUER, agents: dict[str, str] | None = None, **more: Any) -> Issuer:
    told: dict[str, Any] = {"audiences": frozenset({AUDIENCE}), "algorithms": frozenset(DEFAULT_ALGORITHMS)}
    return Issuer(name=name, agents=AgentNames(agents or {}), **told | more)


@asynccontextmanager
async def reading(*issuers: Issuer, keys: Sequence[SigningKey] = (RSA,)) -> AsyncGenerator[SignedTokens]:
    """Tokens of the issuers (one with all defaults unless told), whose keys are served on a socket."""
    async with serving(*keys) as jwks:
        yield tokens_of(jwks, *issuers)


def tokens_of(jwks: Jwks, *issuers: Issuer) -> SignedTokens:
    sources = [(one, AddressSource(jwks.url)) for one in issuers or (issuer(),)]
    return SignedTokens(sources, AGENTS, lambda: time.time_ns() // 1000, time.monotonic)


async def refusal(tokens: SignedTokens, shown: str) -> tuple[str, str]:
    """The reason that is counted, and what the caller is told."""
    with pytest.raises(TokenRefused) as refused:
        await tokens.caller(shown)
    assert refused.value.error.status == 401
    assert not refused.value.error.retryable
    return refused.value.reason, refused.value.error.message


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_every_usual_algorithm_is_taken(algorithm: str) -> None:
    key = signing_key(f"key-{algorithm}", algorithm)
    async with reading(keys=[RSA, key]) as tokens:
        caller = await tokens.caller(token(key))
        assert (caller.agent.id, caller.user_id, caller.actors, caller.run_id) == ("bot", "", (), "")
        assert caller.key_id.startswith("jwt:login.example.com:")


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"])
async def test_access_and_id_tokens_are_taken_by_any_of_their_names(typ: str | None) -> None:
    async with reading() as tokens:
        assert (await tokens.caller(token(RSA, typ=typ))).agent.id == "bot"


async def test_a_token_that_names_no_key_is_tried_with_those_that_may_be_meant() -> None:
    other = signing_key("rsa-2")
    async with reading(keys=[other, RSA]) as tokens:
        assert (await tokens.caller(token(RSA, kid=None))).agent.id == "bot"


async def test_one_of_several_audiences_is_enough() -> None:
    async with reading(issuer(audiences=frozenset({"a", "b"}))) as tokens:
        assert (await tokens.caller(token(RSA, claims(aud=["x", "b"])))).agent.id == "bot"


async def test_leeway_is_for_clocks_that_differ() -> None:
    now = time.time()
    async with reading(issuer(leeway_s=60.0)) as tokens:
        for told in (claims(iat=int(now) - 100, exp=int(now) - 30), claims(nbf=now + 30.5, iat=now + 30.5)):
            assert (await tokens.caller(token(RSA, told))).agent.id == "bot"
        assert (await refusal(tokens, token(RSA, claims(iat=1, exp=int(now) - 61))))[0] == "expired"


SPIFFE = "spiffe://prod.example"
SPIFFE_AGENTS = {
    f"{SPIFFE}/triage": "triage-bot",
    f"{SPIFFE}/ns/*/sa/planner": "planner",
    f"{SPIFFE}/ns/*": "bot",
}


@pytest.mark.parametrize(
    ("path", "agent"),
    [
        ("/triage", "triage-bot"),
        ("/ns/blue/sa/planner", "planner"),
        ("/ns/blue", "bot"),
        ("/ns/blue/other/sa/planner", None),
        ("/ns/blue/sa", None),
        ("/Triage", None),
    ],
)
async def test_a_spiffe_svid_needs_no_iss_and_is_mapped_by_its_path(path: str, agent: str | None) -> None:
    svid = token(RSA, claims(iss=None, sub=SPIFFE + path), typ=None)
    async with reading(issuer(SPIFFE, SPIFFE_AGENTS)) as tokens:
        if agent is None:
            assert (await refusal(tokens, svid))[0] == "unknown_agent"
        else:
            caller = await tokens.caller(svid)
            assert caller.agent.id == agent
            assert caller.key_id.startswith("jwt:prod.example:")


@pytest.mark.parametrize(
    ("sub", "iss", "reason"),
    [
        ("spiffe://prod.example.evil/triage", None, "unknown_issuer"),
        ("spiffe://other.example/triage", SPIFFE, "wrong_claims"),
        ("triage", SPIFFE, "wrong_claims"),
        (f"{SPIFFE}/a/../triage", None, "wrong_claims"),
        (f"{SPIFFE}//triage", None, "wrong_claims"),
        (f"{SPIFFE}/", None, "wrong_claims"),
        (SPIFFE, None, "wrong_claims"),
        (f"{SPIFFE}/triage?x=1", None, "wrong_claims"),
        ("SPIFFE://prod.example/triage", None, "unknown_issuer"),
    ],
)
async def test_a_spiffe_issuer_speaks_for_its_own_domain_only(sub: str, iss: str | None, reason: str) -> None:
    async with reading(issuer(SPIFFE, SPIFFE_AGENTS)) as tokens:
        assert (await refusal(tokens, token(RSA, claims(iss=iss, sub=sub))))[0] == reason


CLUSTER = "https://kubernetes.default.svc.cluster.local"
POD = {
    "namespace": "prod",
    "pod": {"name": "triage-7d", "uid": "0"},
    "serviceaccount": {"name": "triage", "uid": "1"},
}


@pytest.mark.parametrize(
    ("path", "agents"),
    [
        ("sub", {"system:serviceaccount:prod:triage": "triage-bot"}),
        ("sub", {"system:serviceaccount:*:triage": "triage-bot"}),
        ("kubernetes.io.serviceaccount.name", {"triage": "triage-bot"}),
    ],
)
async def test_a_projected_service_account_token(path: str, agents: dict[str, str]) -> None:
    told = claims(iss=CLUSTER, aud=[AUDIENCE], sub="system:serviceaccount:prod:triage")
    async with reading(issuer(CLUSTER, agents, agent=path)) as tokens:
        caller = await tokens.caller(token(RSA, told | {"kubernetes.io": POD}, typ=None))
        assert caller.agent.id == "triage-bot"
        assert caller.key_id.startswith("jwt:kubernetes.default.svc.cluster.local:")


async def test_user_role_and_clearance_come_from_their_claims() -> None:
    told = claims(azp="bot", sub="u-42", groups=["staff"], level="internal")
    one = issuer(agent="azp", user="sub", role="groups", clearance="level")
    async with reading(one) as tokens:
        caller = await tokens.caller(token(RSA, told))
        assert (caller.user_id, caller.user_role, caller.user_clearance) == ("u-42", "staff", "internal")
        nobody = await tokens.caller(token(RSA, claims(azp="bot", sub=None)))
        assert (nobody.user_id, nobody.user_role) == ("", "")
        reason, message = await refusal(tokens, token(RSA, told | {"groups": ["staff", "contractor"]}))
        assert (reason, "several values in its claim groups" in message) == ("wrong_claims", True)


async def test_who_must_name_a_user_and_does_not_is_refused() -> None:
    async with reading(issuer(agent="azp", user="email", user_required=True)) as tokens:
        named = claims(azp="bot", email="ada@example.com", email_verified=True)
        assert (await tokens.caller(token(RSA, named))).user_id == "ada@example.com"
        unsure = {"email_verified": False}
        assert (await refusal(tokens, token(RSA, named | unsure)))[0] == "wrong_claims"
        assert (await refusal(tokens, token(RSA, claims(azp="bot"))))[0] == "wrong_claims"


def chain(*subs: str) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for sub in reversed(subs):
        inner = {"sub": sub} | ({"act": inner} if inner else {})
    return inner


async def test_delegation_names_the_user_the_agent_and_everyone_between() -> None:
    one = issuer(agents={"svc-triage": "triage-bot"}, agent="act.sub", user="sub")
    told = claims(sub="ada", act=chain("svc-triage", "svc-planner"), may_act={"sub": "svc-evil"})
    async with reading(one) as tokens:
        caller = await tokens.caller(token(RSA, told))
        assert (caller.agent.id, caller.user_id) == ("triage-bot", "ada")
        assert caller.actors == ("svc-triage", "svc-planner")
        foreign = {"act": {"sub": "svc-triage", "iss": "https://other.example"}}
        caller = await tokens.caller(token(RSA, told | foreign))
        assert caller.actors == ("svc-triage (https://other.example)",)
        eight = {"act": chain("svc-triage", *(f"a{n}" for n in range(7)))}
        assert len((await tokens.caller(token(RSA, told | eight))).actors) == 8
        assert (await refusal(tokens, token(RSA, claims(sub="ada"))))[0] == "wrong_claims"


async def test_a_caller_keeps_its_key_id_from_token_to_token() -> None:
    now = int(time.time())
    async with reading(issuer(agents={"a": "bot", "b": "bot"})) as tokens:
        ids = [
            (await tokens.caller(token(RSA, claims(sub=sub, exp=now + ttl)))).key_id
            for sub, ttl in (("a", 60), ("a", 600), ("b", 60))
        ]
        assert ids[0] == ids[1] != ids[2]


def test_a_key_id_fits_its_column_and_shows_no_subject() -> None:
    for name in (
        f"https://{'a' * 200}.example",
        "kubernetes/serviceaccount",
        "spiffe://prod",
        "https://[::1",
    ):
        found = key_id(name, "ada@example.com")
        assert len(found) <= 64
        assert "ada" not in found


async def test_a_known_token_costs_no_second_check(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = tokens_module.read_token

    def counted(shown: str) -> object:
        read.append(shown)
        return really(shown)

    monkeypatch.setattr(tokens_module, "read_token", counted)
    now = [time.time_ns() // 1000]
    async with serving(RSA) as jwks:
        sources = [(issuer(leeway_s=0.0), AddressSource(jwks.url))]
        tokens = SignedTokens(sources, AGENTS, lambda: now[0], time.monotonic)
        long, short = token(RSA), token(RSA, claims(exp=now[0] // 1_000_000 + 5))
        callers: list[Caller] = [await tokens.caller(shown) for shown in (long, long, short, short)]
        assert len(read) == 2
        assert callers[0] is callers[1]
        now[0] += 6_000_000
        assert (await refusal(tokens, short))[0] == "expired"
        now[0] += 55_000_000
        await tokens.caller(long)
        assert [shown == long for shown in read] == [True, False, False, True]
        assert len(jwks.asked) == 1


async def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "REMEMBERED", 3)
    async with reading() as tokens:
        for n in range(10):
            await tokens.caller(token(RSA, claims(jti=str(n))))
        assert len(tokens._known) == 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sub", "ada"),
        ("a.b", "literal"),
        ("kubernetes.io.pod.name", "p"),
        ("https://example.com/claims.agent", "bot"),
        ("deep.a.b", "deep"),
        ("kubernetes.io.pod.gone", None),
        ("sub.x", None),
        ("", None),
    ],
)
def test_paths_of_claims(path: str, value: str | None) -> None:
    told = {
        "sub": "ada",
        "a.b": "literal",
        "a": {"b": "nested"},
        "kubernetes.io": {"pod": {"name": "p"}},
        "kubernetes": {"io": {"pod": {}}},
        "https://example.com/claims": {"agent": "bot"},
        "deep": {"a": {"b": "deep"}},
    }
    assert claim(told, path) == value


def test_globs_stay_within_their_name_and_take_no_time() -> None:
    names = AgentNames({"a*b*c/d": "one", "x/*": "two", "x/lit": "three", "*": "rest"})
    shown = ["abc/d", "aXbYbc/d", "a/bc/d", "x/lit", "x/other", "x/a/b", "x:y", "free"]
    found = [names.find(value) for value in shown]
    assert found == ["one", "one", None, "three", "two", None, None, "rest"]
    slow = AgentNames({"*a" * 60 + "b": "slow"})
    began = time.perf_counter()
    assert slow.find("a" * 256) is None
    assert time.perf_counter() - began < 0.1
