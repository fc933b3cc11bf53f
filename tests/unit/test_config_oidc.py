"""oidc in proxy.yaml: what is read of it, and every complaint with its place and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config, ConfigErrors, load_config

GOOD: dict[str, Any] = {"issuer": "https://login.example.com/", "client_id": "console"}
SERVER = {"public_url": "https://llm.example.com/"}
OPERATORS = [{"id": "dana@example.com", "roles": ["admin"]}]


def load(folder: Path, **told: object) -> Config:
    path = folder / "proxy.yaml"
    path.write_text(json.dumps({"server": SERVER, "oidc": GOOD, "operators": OPERATORS} | told, indent=1))
    return load_config(path, {})


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    oidc = load(tmp_path).oidc
    assert (oidc.on, oidc.issuer, oidc.client_secret) == (True, "https://login.example.com/", None)
    assert oidc.scopes == ("openid", "email", "profile")
    assert (oidc.claims.operator, oidc.claims.groups) == ("email", "groups")
    assert oidc.roles == {}
    assert not load(tmp_path, oidc=None, server={}).oidc.on


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    config = load(tmp_path, oidc=GOOD | {"client_secret": "s3cr3t"})
    assert "s3cr3t" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("changed", "key", "says"),
    [
        ({"oidc": {"client_id": "x"}}, "oidc", "has no issuer"),
        ({"oidc": {"issuer": "https://x.example"}}, "oidc", "has no client_id"),
        ({"oidc": GOOD | {"issuer": "http://x.example"}}, "oidc.issuer", "must be https"),
        ({"oidc": GOOD | {"issuer": "https://x.example?a"}}, "oidc.issuer", "no user, password"),
        ({"oidc": GOOD | {"issuer": "https://u@x.example"}}, "oidc.issuer", "no user, password"),
        ({"oidc": GOOD | {"issuer": "login"}}, "oidc.issuer", "must be an https"),
        ({"oidc": GOOD | {"issuer": "https://x.example:0"}}, "oidc.issuer", "must be an https"),
        ({"oidc": GOOD | {"issuer": "https://[x"}}, "oidc.issuer", "not a valid address"),
        ({"oidc": GOOD | {"scopes": ["email"]}}, "oidc.scopes", "must hold openid"),
        ({"oidc": GOOD | {"scopes": ["openid email"]}}, "oidc.scopes", "an item of its own"),
        ({"oidc": GOOD | {"roles": {"leads": ["approver"]}}}, "oidc.roles.leads", "list who approves"),
        ({"oidc": GOOD | {"roles": {"leads": ["boss"]}}}, "oidc.roles.leads.0", "must be 'admin'"),
        ({"oidc": GOOD | {"client": "x"}}, "oidc.client", "client_id"),
        ({"oidc": GOOD | {"ca": "none.pem"}}, "oidc.ca", "does not exist"),
        ({"server": {}}, "oidc.issuer", "needs server.public_url"),
        ({"server": {"public_url": "https://x.example/llm"}}, "server.public_url", "holds a path"),
        (
            {"oidc": {}, "operators": [{"id": "dana", "oidc": "u-1"}]},
            "operators.0.oidc",
            "needs oidc.issuer",
        ),
        (
            {"operators": [{"id": "dana", "oidc": "u-1"}, {"id": "omar", "oidc": "u-1"}]},
            "operators.1.oidc",
            "stands for operators[0] already",
        ),
        (
            {"operators": [{"id": "dana", "oidc": "omar"}, {"id": "omar"}]},
            "operators.1.id",
            "stands for operators[0] already",
        ),
    ],
)
def test_one_complaint_at_its_place(tmp_path: Path, changed: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, **changed)
    (issue,) = caught.value.issues
    assert issue.key.replace("[", ".").replace("]", "") == key
    assert says in issue.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/realms/x", "http://localhost:8080"])
def test_this_machine_may_be_asked_over_http(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, oidc=GOOD | {"issuer": url}).oidc.issuer == url


def test_a_provider_that_lets_nobody_in_is_a_warning(tmp_path: Path) -> None:
    def said(**told: object) -> bool:
        return any("lets nobody in" in issue.message for issue in load(tmp_path, **told).warnings)

    assert said(operators=[])
    assert not said(operators=[], oidc=GOOD | {"roles": {"leads": ["admin"]}})
    assert not said()
