"""Receipts and their verifier: they hold for one exact action, and nothing that was changed holds."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llm_proxy.policy.canonical import digest
from llm_proxy.receipts.issue import Committed, Receipts
from llm_proxy.receipts.verify import TYPE, ReceiptRefused, action_digest, verify_receipt
from llm_proxy.records.view import Decision
from llm_proxy.signing import SigningKey

PRIVATE = Ed25519PrivateKey.generate()
KEY, STRANGER = SigningKey(PRIVATE), SigningKey.new()
ISSUER = "https://proxy.example"
ARGUMENTS: Any = {"to": "ada@example.com", "cc": [], "n": 5}
NOW_US = int(time.time()) * 1_000_000
JWKS = {"keys": [KEY.jwk()]}
VALID_S, WINDOW_S = 3_600, 7_200
"""Long enough for the slowest run of all tests, since the time is that at which this was read."""
RECEIPTS = Receipts(KEY, ISSUER, valid_s=VALID_S, window_s=WINDOW_S)


def committed(at_us: int = NOW_US, **more: Any) -> Committed:
    fields: dict[str, Any] = {
        "tool_call_id": "call_1",
        "tool": "mail_send",
        "arguments": json.dumps(ARGUMENTS),
        "decision": "allow",
        "rule": "tier:autonomous",
        "effect": "write",
        "policy": "ab" * 32,
    }
    decision = Decision(**(fields | more))
    return Committed("bot", "run-1", "call-id", decision, digest("mail_send", ARGUMENTS), at_us)


def receipt(now_us: int = NOW_US, **more: Any) -> str:
    token = RECEIPTS.receipt(committed(**more), now_us)
    assert token is not None
    return token


def claims_of(token: str) -> dict[str, Any]:
    return verify_receipt(token, JWKS, tool="mail_send", arguments=ARGUMENTS, issuer=ISSUER)


def resigned(
    key: Any = None,
    algorithm: str = "EdDSA",
    kid: str = KEY.id,
    typ: str = TYPE,
    without: str = "",
    **changed: Any,
) -> str:
    """The receipt with other claims, or one left out, by whoever signs it."""
    claims = {k: v for k, v in (claims_of(receipt()) | changed).items() if k != without}
    signer = key or PRIVATE
    return jwt.encode(claims, signer, algorithm, headers={"kid": kid, "typ": typ})


def test_a_receipt_says_who_may_do_what_until_when() -> None:
    told = claims_of(receipt())
    now_s = NOW_US // 1_000_000
    assert told | {"jti": ""} == {
        "iss": ISSUER,
        "sub": "bot",
        "iat": now_s,
        "exp": now_s + VALID_S,
        "until": now_s + WINDOW_S,
        "jti": "",
        "run_id": "run-1",
        "call_id": "call-id",
        "tool": "mail_send",
        "tool_call_id": "call_1",
        "args_sha256": digest("mail_send", ARGUMENTS),
        "decision": "allow",
        "rule": "tier:autonomous",
        "effect": "write",
        "policy": "ab" * 32,
    }
    assert jwt.get_unverified_header(receipt()) == {"alg": "EdDSA", "kid": KEY.id, "typ": TYPE}
    assert claims_of(receipt(approval="apr_1", shadow=True))["approval"] == "apr_1"
    assert claims_of(receipt(now_us=NOW_US + 1_000_000))["jti"] == told["jti"]
    assert claims_of(receipt(index=1))["jti"] != told["jti"]


def test_none_is_given_for_what_was_not_released_nor_judged_nor_of_late() -> None:
    assert RECEIPTS.receipt(committed(decision="deny"), NOW_US) is None
    assert RECEIPTS.receipt(committed(policy=""), NOW_US) is None
    assert RECEIPTS.receipt(committed(at_us=NOW_US - WINDOW_S * 1_000_000), NOW_US) is None
    assert Receipts(None, ISSUER, VALID_S, WINDOW_S).receipt(committed(), NOW_US) is None
    assert Receipts(None, ISSUER, VALID_S, WINDOW_S).key_set == b'{"keys":[]}'
    late = RECEIPTS.receipt(committed(at_us=NOW_US - (WINDOW_S - 1_800) * 1_000_000), NOW_US)
    assert late is not None
    assert claims_of(late)["exp"] == claims_of(late)["until"] == NOW_US // 1_000_000 + 1_800


@pytest.mark.parametrize(
    "arguments", [{"n": 5.0, "cc": [], "to": "ada@example.com"}, json.dumps(ARGUMENTS, indent=2)]
)
def test_the_same_action_in_another_spelling_holds(arguments: Any) -> None:
    assert verify_receipt(receipt(), JWKS, tool="mail_send", arguments=arguments)["sub"] == "bot"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("mail_read", ARGUMENTS, "for the tool"),
        ("mail_send", {**ARGUMENTS, "to": "eve@example.com"}, "other arguments"),
        ("mail_send", {**ARGUMENTS, "bcc": "eve@example.com"}, "other arguments"),
        ("mail_send", {**ARGUMENTS, "n": "5"}, "other arguments"),
        ("mail_send", {**ARGUMENTS, "n": float("nan")}, "canonical form"),
        ("mail_send", '{"to": 1, "to": 2}', "twice"),
        ("mail_send", None, "other arguments"),
    ],
)
def test_another_action_does_not(tool: str, arguments: Any, said: str) -> None:
    with pytest.raises(ReceiptRefused, match=said):
        verify_receipt(receipt(), JWKS, tool=tool, arguments=arguments)


CLAIMS = [
    "iss",
    "sub",
    "iat",
    "exp",
    "until",
    "jti",
    "run_id",
    "call_id",
    "tool",
    "tool_call_id",
    "args_sha256",
]


@pytest.mark.parametrize("claim", [*CLAIMS, "rule", "policy", "effect", "decision"])
def test_no_claim_can_be_changed_by_who_lacks_the_key(claim: str) -> None:
    header, body, signature = receipt().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims[claim] = claims[claim] + 1 if isinstance(claims[claim], int) else claims[claim] + "x"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(ReceiptRefused, match="Signature verification failed"):
        claims_of(f"{header}.{forged}.{signature}")


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_claim_can_be_left_out(claim: str) -> None:
    with pytest.raises(ReceiptRefused, match=claim):
        claims_of(resigned(without=claim))


def _none() -> str:
    header = {"alg": "none", "kid": KEY.id, "typ": TYPE}
    parts = (json.dumps(part).encode() for part in (header, claims_of(receipt())))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(_none, id="alg none"),
        pytest.param(lambda: resigned(KEY.public + b"\0" * 32, "HS256"), id="HS256 with the public key"),
        pytest.param(lambda: resigned(KEY.jwk()["x"] * 2, "HS256"), id="HS256 with the key as text"),
        pytest.param(lambda: resigned(Ed25519PrivateKey.generate()), id="a stranger under our kid"),
        pytest.param(lambda: resigned(kid=STRANGER.id), id="another kid"),
        pytest.param(lambda: resigned(typ="JWT"), id="another type of token"),
        pytest.param(lambda: resigned(exp=int(time.time()) - 10), id="expired"),
        pytest.param(lambda: resigned(iat=int(time.time()) + 60), id="from the future"),
        pytest.param(lambda: resigned(iss="https://else.example"), id="another issuer"),
        pytest.param(lambda: resigned(tool="other"), id="another tool"),
        pytest.param(lambda: resigned(args_sha256="0" * 64), id="other arguments"),
        pytest.param(lambda: receipt()[:-8], id="cut"),
        pytest.param(lambda: "no token", id="no token"),
        pytest.param(lambda: "", id="nothing"),
    ],
)
def test_what_is_no_receipt_of_ours_is_refused(token: Any) -> None:
    with pytest.raises(ReceiptRefused):
        claims_of(token())


def test_a_key_set_with_other_keys_finds_ours_and_never_an_rsa_or_secret_one() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": KEY.id, "alg": "HS256"}
    several = {"keys": [STRANGER.jwk(), KEY.jwk()]}
    assert verify_receipt(receipt(), several, tool="mail_send", arguments=ARGUMENTS)
    with pytest.raises(ReceiptRefused):
        verify_receipt(
            resigned("secret-secret-secret-secret-secret", "HS256"),
            {"keys": [secret]},
            tool="mail_send",
            arguments=ARGUMENTS,
        )
    with pytest.raises(ReceiptRefused):
        verify_receipt(receipt(), {"keys": []}, tool="mail_send", arguments=ARGUMENTS)


def test_what_is_told_afterwards_may_come_after_the_receipt_expired() -> None:
    old = receipt()
    assert RECEIPTS.read(old, NOW_US + 3_600_000_000)["run_id"] == "run-1"
    with pytest.raises(ValueError, match="more than a day"):
        RECEIPTS.read(old, NOW_US + 100_000_000_000)
    for token in (
        resigned(typ="JWT"),
        resigned(Ed25519PrivateKey.generate()),
        resigned(iss="x"),
        "",
        _none(),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            RECEIPTS.read(token, NOW_US)


def test_the_verifier_imports_nothing_of_the_proxy() -> None:
    program = (
        "import sys, llm_proxy.receipts.verify as v; print(v.action_digest('t', {'a': 1}));"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('llm_proxy', 'budgets', 'routing',"
        " 'sqlalchemy', 'pydantic', 'fastapi', 'litellm', 'aiohttp')))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert out[0] == action_digest("t", '{"a": 1.0}')
    assert out[1] == str(
        [
            "llm_proxy",
            "llm_proxy.policy",
            "llm_proxy.policy.arguments",
            "llm_proxy.policy.canonical",
            "llm_proxy.receipts",
            "llm_proxy.receipts.verify",
        ]
    )
