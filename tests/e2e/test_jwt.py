"""Agents that show a JWT in place of a key, through the real proxy: SDKs, users, budgets, policy, records."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.issuers import AUDIENCE, ISSUER, Jwks, SigningKey, claims, serving, signing_key, token
from tests.proxy import KEY, ProxyProcess, ask, config, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

RSA, EC, STRANGER = signing_key("rsa-1"), signing_key("ec-1", "ES256"), signing_key("stranger")
DOMAIN, CLUSTER, ABSENT = "spiffe://prod.example", "https://cluster.example", "https://absent.example"
SCRIPT = """
models:
  m:
    turns:
      - when: {last_user_contains: refund}
        tool_calls: [{name: refund, arguments: {order: "7"}}]
      - {text: Hello there., deltas: 3, usage: {input: 10, output: 5}}
"""
AGENTS = {
    "bot": {"keys": [KEY], "models": ["m"]},
    "triage-bot": {"models": ["m"], "team": "support"},
    "planner": {"models": ["m"]},
}
BUDGETS = [
    {"id": "per-user", "user": "*", "window": "day", "requests": 4},
    {"id": "all", "window": "day", "requests": 10_000},
]
POLICY = {
    "policy": {"id": "jwt", "version": 1},
    "on_deny": "replace",
    "tools": {"refund": {"effect": "write", "tier": "autonomous", "args": {"type": "object"}}},
    "rules": [
        {
            "id": "managers-only",
            "then": "deny",
            "when": '!(user.verified && user.role == "manager" && user.clearance >= label.internal)',
            "why": "Only managers refund",
        }
    ],
    "tests": [
        {"name": "nobody", "call": {"tool": "refund", "args": {"order": "7"}}, "expect": {"decision": "deny"}}
    ],
}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    jwks: Jwks
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream, serving(RSA, EC) as jwks:
        folder = tmp_path_factory.mktemp("jwt")
        (folder / "cluster.json").write_bytes(jwks.body())
        oidc: dict[str, Any] = {
            "issuer": ISSUER,
            "jwks": jwks.url,
            "audience": AUDIENCE,
            "claims": {"agent": "act.sub", "user": "sub", "role": "roles", "clearance": "level"},
            "agents": {"svc-triage": "triage-bot", "svc-planner": "planner"},
        }
        spiffe = {"issuer": DOMAIN, "jwks": jwks.url, "audience": [AUDIENCE, "other"]}
        spiffe |= {"agents": {f"{DOMAIN}/ns/*/sa/bot": "bot"}}
        cluster = {"issuer": CLUSTER, "jwks": "file:cluster.json", "audience": AUDIENCE}
        cluster |= {
            "claims": {"agent": "kubernetes.io.serviceaccount.name"},
            "agents": {"triage": "triage-bot"},
        }
        absent = {"issuer": ABSENT, "jwks": "http://127.0.0.1:9/keys", "audience": AUDIENCE}
        settings = config(
            upstream.base_url,
            agents=AGENTS,
            budgets=BUDGETS,
            identity={"issuers": [oidc, spiffe, cluster, absent]},
        )
        async with ProxyProcess(folder, settings, policy=POLICY) as proxy:
            yield House(proxy, upstream, jwks, folder)


def delegated(user: str, agent: str = "svc-triage", *before: str, key: SigningKey = RSA, **more: Any) -> str:
    """A user's token that an agent holds, handed on by those `before`."""
    act: dict[str, Any] | None = None
    for sub in reversed((agent, *before)):
        act = {"sub": sub} | ({"act": act} if act else {})
    return token(key, claims(sub=user, act=act, jti=os.urandom(8).hex(), **more))


async def say(proxy: ProxyProcess, key: str, text: str = "hi", **more: Any) -> tuple[str, CallView]:
    """What the official SDK heard of a whole reply, and the record of the call."""
    async with proxy.sdk(key) as sdk:
        reply = await sdk.chat.completions.with_raw_response.create(**ask(text), **more)
        said = reply.parse().choices[0].message.content or ""
        return said, proxy.view(reply.headers["x-call-id"])


async def test_the_sdk_takes_a_token_for_its_key(house: House) -> None:
    said, view = await say(house.proxy, delegated("ada", "svc-triage", "svc-planner"))
    assert said == "Hello there."
    assert (view.agent_id, view.team, view.user_id, view.user_verified) == (
        "triage-bot",
        "support",
        "ada",
        True,
    )
    assert view.actors == ("svc-triage", "svc-planner")
    assert view.key_id.startswith("jwt:login.example.com:")
    async with house.proxy.sdk(delegated("ada-2", key=EC)) as sdk:
        stream = await sdk.chat.completions.create(**ask(), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == "Hello there."
        assert [model.id async for model in sdk.models.list()] == ["m"]
    await house.proxy.settled()
    (streamed,) = [view for view in house.proxy.views(agent="triage-bot") if view.user_id == "ada-2"]
    assert streamed.stream


async def test_spiffe_and_kubernetes_tokens_are_agents_without_a_user(house: House) -> None:
    svid = token(RSA, claims(iss=None, sub=f"{DOMAIN}/ns/blue/sa/bot", aud=["other"]), typ=None)
    _, view = await say(house.proxy, svid)
    assert (view.agent_id, view.user_id, view.user_verified) == ("bot", "", False)
    assert view.key_id.startswith("jwt:prod.example:")
    sub = "system:serviceaccount:prod:triage"
    pod = {"namespace": "prod", "serviceaccount": {"name": "triage", "uid": "1"}}
    bound = claims(iss=CLUSTER, aud=[AUDIENCE], sub=sub) | {"kubernetes.io": pod}
    _, view = await say(house.proxy, token(EC, bound))
    assert (view.agent_id, view.actors) == ("triage-bot", ())


async def test_a_verified_user_has_one_budget_over_all_agents(house: House) -> None:
    """And nobody else's header or body counts in it, nor takes the user out of it."""
    proxy = house.proxy
    for _ in range(10):  # a foreign agent that claims to act for eve, whose budget holds four
        try:
            await say(proxy, KEY, extra_headers={"x-user-id": "eve"})
        except openai.RateLimitError:
            break
    agents = ["svc-triage", "svc-planner", "svc-triage", "svc-planner"]
    for agent in agents:
        _, view = await say(
            proxy, delegated("eve", agent), extra_headers={"x-user-id": "someone-else"}, user="another"
        )
        assert (view.user_id, view.user_verified) == ("eve", True)
    for agent in ("svc-triage", "svc-planner"):
        with pytest.raises(openai.RateLimitError) as refused:
            await say(proxy, delegated("eve", agent), extra_headers={"x-user-id": "someone-else"})
        assert refused.value.code == "budget_exceeded"
        assert "per-user" in refused.value.message
    _, view = await say(proxy, delegated("fay", "svc-planner"))
    assert view.user_id == "fay"
    used = {k: v["used_requests"] for k, v in proxy.counters().items() if "user=eve" in k}
    assert sorted(used.values()) == [4, 4], used  # the verified eve's, and those of bot's unverified one


async def test_a_policy_knows_a_verified_user_s_role(house: House) -> None:
    async def refunds(key: str, **more: Any) -> bool:
        await say(house.proxy, key, "refund", **more)
        (decision,) = house.proxy.views()[-1].decisions
        return decision.decision == "allow"

    boss = delegated("boss", roles=["manager"], level="internal")
    assert await refunds(boss)
    assert not await refunds(delegated("clerk", roles=["clerk"], level="internal"))
    assert not await refunds(delegated("cleared-not", roles=["manager"]))
    assert not await refunds(KEY, extra_headers={"x-user-id": "boss"})


REFUSED: list[tuple[str, str, str]] = [
    ("expired", delegated("u", exp=int(time.time()) - 3600, iat=None), "has expired"),
    ("wrong_audience", delegated("u", aud="other"), "another audience"),
    ("bad_signature", delegated("u", key=SigningKey("rsa-1", "RS256", STRANGER.private)), "signature is not"),
    ("unknown_issuer", delegated("u", iss="https://evil.example"), "No issuer here is named"),
    ("unknown_signing_key", delegated("u", key=STRANGER), "no key of the token's kid"),
    ("unknown_agent", delegated("u", "svc-evil"), "'svc-evil' is no agent here"),
    ("malformed_token", "eyJhbGciOiJub25lIn0.e30", "not three base64url parts"),
]


@pytest.mark.parametrize(("reason", "shown", "says"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_a_refused_token_is_counted_once_by_its_reason(
    house: House, reason: str, shown: str, says: str
) -> None:
    before, asked = house.proxy.refusals(), len(house.upstream.seen)
    with pytest.raises(openai.AuthenticationError) as refused:
        await say(house.proxy, shown)
    assert refused.value.code == "invalid_credential"
    assert says in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    after = house.proxy.refusals()
    assert after == before | {reason: before.get(reason, 0) + 1}
    assert len(house.upstream.seen) == asked


async def test_an_issuer_that_never_answered_is_a_503_and_no_refusal(house: House) -> None:
    before = house.proxy.refusals()
    async with aiohttp.ClientSession() as http:
        shown = token(RSA, claims(iss=ABSENT))
        reply = await http.post(house.proxy.url, json=ask(), headers=headers(shown))
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (503, "issuer_unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        assert "x-should-retry" not in reply.headers
    assert house.proxy.refusals() == before


async def test_no_token_is_kept_anywhere(house: House) -> None:
    shown = delegated("keeper")
    _, view = await say(house.proxy, shown)
    signature = shown.rpartition(".")[2]
    for path in house.folder.iterdir():
        assert signature.encode() not in path.read_bytes(), path.name
    assert signature not in repr(view)
    assert all(signature not in str(seen.headers) for seen in house.upstream.seen)


async def test_calls_show_says_who_acts_for_whom(house: House) -> None:
    _, view = await say(house.proxy, delegated("gus", "svc-triage", "svc-planner"))
    shown = json.loads(await _cli(house, "calls", "show", view.id, "--json"))
    assert (shown["user_id"], shown["user_verified"]) == ("gus", True)
    assert shown["actors"] == ["svc-triage", "svc-planner"]
    text = await _cli(house, "calls", "show", view.id)
    assert "gus (verified)" in text
    assert "svc-triage for svc-planner" in text


async def _cli(house: House, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", *words, "--config", str(house.folder / "proxy.yaml")),
        stdout=asyncio.subprocess.PIPE,
        cwd=house.folder,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_rotated_keys_are_followed_while_calls_go_on(house: House) -> None:
    fresh = signing_key("rsa-new")
    with pytest.raises(openai.AuthenticationError):
        await say(house.proxy, delegated("hal", key=fresh))
    house.jwks.keys = [fresh, EC]

    async def taken() -> bool:
        try:
            await say(house.proxy, delegated("hal", key=fresh))
        except openai.AuthenticationError:
            return False
        return True

    await until(taken, "the new key is taken", 15)
    with pytest.raises(openai.AuthenticationError):
        await say(house.proxy, delegated("hal", key=RSA))
