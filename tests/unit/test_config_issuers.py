"""identity.issuers in proxy.yaml: what is read of it, and every complaint with its place and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import wiring
from llm_proxy.config import Config, ConfigErrors, load_config
from llm_proxy.identity.keyfetch import AddressSource, FileSource
from tests.issuers import Jwks, signing_key

GOOD: dict[str, Any] = {"issuer": "https://i.example", "jwks": "https://i.example/keys", "audience": "proxy"}


def load(folder: Path, *issuers: object, **more: object) -> Config:
    told = {"identity": {"issuers": issuers}, "agents": {"triage-bot": {}, "planner": {}}} | more
    path = folder / "proxy.yaml"
    path.write_text(json.dumps(told, indent=1))
    return load_config(path, {})


def complaints(folder: Path, *issuers: object) -> dict[str, str]:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, *issuers)
    assert all(issue.line > 1 and issue.column > 1 for issue in caught.value.issues)
    return {issue.key.removeprefix("identity.issuers"): issue.message for issue in caught.value.issues}


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    ((issuer, source),) = wiring.issuers(load(tmp_path, GOOD))
    assert (issuer.name, issuer.audiences, issuer.agent) == ("https://i.example", {"proxy"}, "sub")
    assert issuer.algorithms == {"RS256", "PS256", "ES256", "ES384", "EdDSA"}
    assert (issuer.user, issuer.role, issuer.clearance, issuer.user_required) == ("", "", "", False)
    assert (issuer.leeway_s, issuer.agents.find("anyone")) == (30, "anyone")
    assert source == AddressSource("https://i.example/keys")


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(Jwks([signing_key("k")]).body())
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "token").write_text("t")
    claims = {"agent": "act.sub", "user": "sub", "role": "roles", "clearance": "level"}
    one = GOOD | {
        "audience": ["a", "b"],
        "claims": claims,
        "agents": {"svc-*": "planner", "svc-triage": "triage-bot"},
        "algorithms": ["RS512"],
        "leeway_s": 0,
        "user_required": True,
        "jwks_ca": "ca.pem",
        "jwks_token": "file:token",
    }
    two = {"issuer": "spiffe://prod.example", "jwks": "file:keys.json", "audience": "a"}
    (issuer, source), (domain, file) = wiring.issuers(load(tmp_path, one, two))
    assert (issuer.audiences, issuer.algorithms) == ({"a", "b"}, {"RS512"})
    assert (issuer.agent, issuer.user, issuer.role, issuer.clearance) == tuple(claims.values())
    assert [issuer.agents.find(name) for name in ("svc-triage", "svc-x", "x")] == [
        "triage-bot",
        "planner",
        None,
    ]
    assert (issuer.leeway_s, issuer.user_required, domain.is_trust_domain) == (0, True, True)
    assert source == AddressSource(GOOD["jwks"], tmp_path / "ca.pem", tmp_path / "token")
    assert file == FileSource(tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("changed", "key", "says"),
    [
        ({"issuer": ""}, ".issuer", "1 to 512 printable characters"),
        ({"issuer": " x"}, ".issuer", "without blanks around"),
        ({"issuer": 7}, ".issuer", "put it in quotes"),
        ({"issuer": "spiffe://prod/triage"}, ".issuer", "trust domain alone"),
        ({"issuer": "spiffe://Prod"}, ".issuer", "trust domain alone"),
        ({"jwks": 7}, ".jwks", "put it in quotes"),
        ({"jwks": "i.example/keys"}, ".jwks", "https:// address or file:PATH"),
        ({"jwks": "http://i.example/keys"}, ".jwks", "must be https"),
        ({"jwks": "http://127.0.0.1.evil.example/keys"}, ".jwks", "must be https"),
        ({"jwks": "https://u:p@i.example/keys"}, ".jwks", "no user, password"),
        ({"jwks": "https://i.example:x/keys"}, ".jwks", "not a valid address"),
        ({"jwks": "https://i.example/ke ys"}, ".jwks", "must be an https:// address"),
        ({"jwks": "file:gone.json"}, ".jwks", "can't be read: No such file"),
        ({"jwks": "file:proxy.yaml"}, ".jwks", 'must be {"keys": [...]}'),
        ({"jwks": "file:private.json"}, ".jwks", "holds no public key"),
        ({"jwks_ca": "gone.pem"}, ".jwks_ca", "does not exist"),
        ({"jwks_token": "secret-token"}, ".jwks_token", "must be file:PATH"),
        ({"jwks_token": "file:gone"}, ".jwks_token", "is no file"),
        ({"jwks": "file:keys.json", "jwks_token": "file:keys.json"}, "", "leave out jwks_ca and jwks_token"),
        ({"jwks": "http://127.0.0.1/k", "jwks_ca": "keys.json"}, "", "or write https"),
        ({"audience": []}, ".audience", "is empty"),
        ({"audience": [""]}, ".audience[0]", "1 to 512"),
        ({"audience": 7}, ".audience", "put it in quotes"),
        ({"claims": {"agent": ""}}, ".claims.agent", "1 to 512"),
        ({"claims": {"agnet": "x"}}, ".claims.agnet", "did you mean 'agent'?"),
        ({"claims": {"role": "r"}}, ".claims", "as user"),
        ({"agents": ["triage-bot"]}, ".agents", "must be a mapping"),
        ({"agents": {"x": "triage-bto"}}, ".agents.x", "'triage-bto': did you mean 'triage-bot'?"),
        ({"algorithms": ["HS256"]}, ".algorithms[0]", "never taken"),
        ({"algorithms": ["none"]}, ".algorithms[0]", "never taken"),
        ({"algorithms": ["RS257"]}, ".algorithms[0]", "did you mean 'RS256'?"),
        ({"algorithms": []}, ".algorithms", "leave it out for the usual ones"),
        ({"leeway_s": 301}, ".leeway_s", "less than or equal to 300"),
        ({"leeway_s": -1}, ".leeway_s", "greater than or equal to 0"),
        ({"user_required": True}, "", "no claims.user"),
        ({"user": "sub"}, ".user", "unknown key"),
    ],
)  # fmt: skip
def test_one_complaint_at_its_place(tmp_path: Path, changed: dict[str, Any], key: str, says: str) -> None:
    key_set = Jwks([signing_key("k")]).body()
    (tmp_path / "keys.json").write_bytes(key_set)
    (tmp_path / "private.json").write_bytes(key_set.replace(b'"use"', b'"d": "AAAA", "use"'))
    found = complaints(tmp_path, GOOD | changed)
    assert list(found) == [f"[0]{key}"]
    assert says in found[f"[0]{key}"]


@pytest.mark.parametrize("missing", ["issuer", "jwks", "audience"])
def test_what_is_required_is_missed(tmp_path: Path, missing: str) -> None:
    entry = {name: value for name, value in GOOD.items() if name != missing}
    assert complaints(tmp_path, entry) == {f"[0].{missing}": "is required"}


def test_an_issuer_stands_once(tmp_path: Path) -> None:
    (message,) = complaints(tmp_path, GOOD, GOOD | {"audience": "b"}).values()
    assert "is taken by identity.issuers[0].issuer" in message
    assert "every audience" in message


@pytest.mark.parametrize("url", ["http://localhost:8080/k", "http://127.1.2.3/k", "http://[::1]:9/k"])
def test_this_host_may_be_asked_over_http(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, GOOD | {"jwks": url}).identity.issuers[0].jwks == url
