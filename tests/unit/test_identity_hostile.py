"""Forged, broken and foreign tokens: each is refused for the right reason, and quickly."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.identity.jose import MAX_TOKEN, Reason, TokenFault, read_token
from llm_proxy.identity.jwks import read_key_set
from tests.issuers import ISSUER, b64, claims, compact, serving, signing_key, token
from tests.unit.test_identity_tokens import issuer, refusal, tokens_of

RSA, OTHER = signing_key("rsa-1"), signing_key("rsa-2")
EC, EC384 = signing_key("ec-1", "ES256"), signing_key("ec-3", "ES384")
ED = signing_key("ed-1", "EdDSA")
STRANGER = signing_key("stranger")
PUBLISHED = (RSA, OTHER, EC, EC384, ED)
GOOD = token(RSA)
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
NOW = int(time.time())


def signed(header: dict[str, Any], payload: dict[str, Any] | str, secret: bytes) -> str:
    """With HMAC-SHA256, as a forger who takes a public key for a shared secret does it."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    body = f"{b64(json.dumps(header).encode())}.{b64(text.encode())}"
    return f"{body}.{b64(hmac.digest(secret, body.encode(), hashlib.sha256))}"


def pem() -> bytes:
    return RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def flipped(part: str) -> str:
    return ("B" if part[0] == "A" else "A") + part[1:]


def acting(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"sub": "a"}
    for _ in range(depth - 1):
        inner = {"sub": "a", "act": inner}
    return inner


def told(**more: Any) -> str:
    return token(RSA, claims(**more))


def raw_claims(text: str) -> str:
    return compact(json.dumps({"alg": "RS256", "kid": "rsa-1"}), text, RSA)


NONE, NONE_TOO, BROKEN, LIST = map(b64, (b'{"alg": "none"}', b'{"alg": "None"}', b'{"alg"', b"[1]"))
ES256 = b64(b'{"alg": "ES256", "kid": "ec-1"}')
EXP = f'"iss": "{ISSUER}", "aud": "llm-proxy", "sub": "bot"'

# (name, token, reason)
CASES: list[tuple[str, str | Callable[[], str], Reason]] = [
    ("alg none", f"{NONE}.{PAYLOAD}.", Reason.WRONG_ALGORITHM),
    ("alg None", f"{NONE_TOO}.{PAYLOAD}.{SIGNATURE}", Reason.WRONG_ALGORITHM),
    ("no signature", f"{HEADER}.{PAYLOAD}.", Reason.BAD_SIGNATURE),
    ("HS256 with the PEM", lambda: signed({"alg": "HS256", "kid": "rsa-1"}, claims(), pem()),
     Reason.WRONG_ALGORITHM),
    ("HS256 with the JWK", lambda: signed({"alg": "HS256", "kid": "rsa-1"}, claims(),
                                          json.dumps(RSA.jwk).encode()), Reason.WRONG_ALGORITHM),
    ("HS256 of nothing", lambda: signed({"alg": "HS256"}, claims(), b""), Reason.WRONG_ALGORITHM),
    ("RS256 said, HMAC done", lambda: signed({"alg": "RS256", "kid": "rsa-1"}, claims(), pem()),
     Reason.BAD_SIGNATURE),
    ("alg in lower case", lambda: token(RSA, alg="rs256"), Reason.WRONG_ALGORITHM),
    ("alg with a blank", lambda: token(RSA, alg="RS256 "), Reason.WRONG_ALGORITHM),
    ("alg not allowed here", lambda: token(RSA, alg="RS512"), Reason.WRONG_ALGORITHM),
    ("alg is a list", lambda: token(RSA, alg=["RS256"]), Reason.MALFORMED),
    ("alg absent", lambda: token(RSA, alg=None), Reason.MALFORMED),
    ("kid of another key", lambda: token(RSA, kid="rsa-2"), Reason.BAD_SIGNATURE),
    ("kid of another type", lambda: token(RSA, kid="ec-1"), Reason.UNKNOWN_KEY),
    ("kid unknown", lambda: token(RSA, kid="gone"), Reason.UNKNOWN_KEY),
    ("kid empty", lambda: token(RSA, kid=""), Reason.UNKNOWN_KEY),
    ("kid a path", lambda: token(RSA, kid="../../dev/null"), Reason.UNKNOWN_KEY),
    ("kid a number", lambda: token(RSA, kid=1), Reason.MALFORMED),
    ("kid with SQL", lambda: token(RSA, kid="' OR 1=1 --"), Reason.UNKNOWN_KEY),
    ("a stranger's key", lambda: token(STRANGER, kid="rsa-1"), Reason.BAD_SIGNATURE),
    ("a stranger's key, unnamed", lambda: token(STRANGER, kid=None), Reason.BAD_SIGNATURE),
    ("its own jwk", lambda: token(STRANGER, jwk=STRANGER.jwk), Reason.UNKNOWN_KEY),
    ("its own jwk by a known kid", lambda: token(STRANGER, kid="rsa-1", jwk=STRANGER.jwk),
     Reason.BAD_SIGNATURE),
    ("its own jku", lambda: token(STRANGER, jku="http://127.0.0.1:1/keys"), Reason.UNKNOWN_KEY),
    ("its own x5u", lambda: token(STRANGER, x5u="http://127.0.0.1:1/c", kid=None), Reason.BAD_SIGNATURE),
    ("its own x5c", lambda: token(STRANGER, x5c=["MIIB"], kid="rsa-1"), Reason.BAD_SIGNATURE),
    ("ES256 by a P-384 key", lambda: token(EC384, alg="ES256"), Reason.UNKNOWN_KEY),
    ("ES384 by a P-256 key", lambda: token(EC, alg="ES384"), Reason.UNKNOWN_KEY),
    ("ES256 said by EdDSA", lambda: token(ED, alg="ES256"), Reason.UNKNOWN_KEY),
    ("ES256 of zeros", f"{ES256}.{PAYLOAD}.{b64(bytes(64))}",
     Reason.BAD_SIGNATURE),
    ("ES256 too short", f"{ES256}.{PAYLOAD}.{b64(bytes(7))}",
     Reason.BAD_SIGNATURE),
    ("PS256 said, RS256 done", lambda: token(RSA, alg="PS256"), Reason.BAD_SIGNATURE),
    ("payload of another token", f"{HEADER}.{told(sub='triage-bot').split('.')[1]}.{SIGNATURE}",
     Reason.BAD_SIGNATURE),
    ("header of another token", f"{token(RSA, x='y').split('.')[0]}.{PAYLOAD}.{SIGNATURE}",
     Reason.BAD_SIGNATURE),
    ("signature with a bit flipped", f"{HEADER}.{PAYLOAD}.{flipped(SIGNATURE)}", Reason.BAD_SIGNATURE),
    ("crit", lambda: token(RSA, crit=["exp"]), Reason.MALFORMED),
    ("crit, empty", lambda: token(RSA, crit=[]), Reason.MALFORMED),
    ("b64 false", lambda: token(RSA, b64=False, crit=["b64"]), Reason.MALFORMED),
    ("zip", lambda: token(RSA, zip="DEF"), Reason.MALFORMED),
    ("a token in a token", lambda: token(RSA, cty="JWT"), Reason.MALFORMED),
    ("a logout token", lambda: token(RSA, typ="logout+jwt"), Reason.MALFORMED),
    ("a DPoP proof", lambda: token(RSA, typ="dpop+jwt"), Reason.MALFORMED),
    ("typ a number", lambda: token(RSA, typ=7), Reason.MALFORMED),
    ("huge", lambda: told(pad="x" * MAX_TOKEN), Reason.MALFORMED),
    ("truncated in the signature", GOOD[:-22], Reason.BAD_SIGNATURE),
    ("truncated to two parts", f"{HEADER}.{PAYLOAD}", Reason.MALFORMED),
    ("header alone", HEADER, Reason.MALFORMED),
    ("five parts, as if encrypted", f"{HEADER}.a.b.c.d", Reason.MALFORMED),
    ("with padding", f"{HEADER}.{PAYLOAD}.{SIGNATURE}==", Reason.MALFORMED),
    ("base64, not base64url", f"{HEADER}.{PAYLOAD}.+/{SIGNATURE[2:]}", Reason.MALFORMED),
    ("a line in it", f"{HEADER}.{PAYLOAD}\n.{SIGNATURE}", Reason.MALFORMED),
    ("a Cyrillic letter in it", f"{HEADER}.{PAYLOAD}.\u0430{SIGNATURE[1:]}", Reason.MALFORMED),
    ("a letter too many", f"{HEADER}A.{PAYLOAD}.{SIGNATURE}", Reason.MALFORMED),
    ("header no JSON", f"{BROKEN}.{PAYLOAD}.{SIGNATURE}", Reason.MALFORMED),
    ("header a list", f"{LIST}.{PAYLOAD}.{SIGNATURE}", Reason.MALFORMED),
    ("header not UTF-8", f"{b64(bytes([0x7B, 0xFF]))}.{PAYLOAD}.{SIGNATURE}", Reason.MALFORMED),
    ("alg twice", lambda: compact('{"alg": "none", "alg": "RS256", "kid": "rsa-1"}', "{}", RSA),
     Reason.MALFORMED),
    ("sub twice", lambda: raw_claims(f'{{{EXP}, "sub": "planner", "exp": {NOW + 60}}}'), Reason.MALFORMED),
    ("exp twice", lambda: raw_claims(f'{{{EXP}, "exp": 1, "exp": {NOW + 60}}}'), Reason.MALFORMED),
    ("twice in act", lambda: raw_claims(f'{{{EXP}, "exp": {NOW + 60}, "act": {{"sub": "a", "sub": "b"}}}}'),
     Reason.MALFORMED),
    ("payload nested deeply", lambda: raw_claims('{"a":' * 2000 + "1" + "}" * 2000), Reason.MALFORMED),
    ("payload a list nested deeply", lambda: raw_claims("[" * 8000), Reason.MALFORMED),
    ("payload text", lambda: raw_claims('"claims"'), Reason.MALFORMED),
    ("NaN", lambda: raw_claims(f'{{{EXP}, "exp": NaN}}'), Reason.MALFORMED),
    ("Infinity", lambda: raw_claims(f'{{{EXP}, "exp": Infinity}}'), Reason.MALFORMED),
    ("a number of 5000 digits", lambda: raw_claims(f'{{{EXP}, "exp": {"9" * 5000}}}'), Reason.MALFORMED),
    ("expired", lambda: told(iat=NOW - 7200, exp=NOW - 3600), Reason.EXPIRED),
    ("expired in 1970", lambda: told(iat=0, exp=0), Reason.EXPIRED),
    ("exp missing", lambda: told(exp=None), Reason.WRONG_CLAIMS),
    ("exp null", lambda: raw_claims(f'{{{EXP}, "exp": null}}'), Reason.WRONG_CLAIMS),
    ("exp text", lambda: told(exp=str(NOW + 60)), Reason.WRONG_CLAIMS),
    ("exp true", lambda: told(exp=True), Reason.WRONG_CLAIMS),
    ("exp a list", lambda: told(exp=[NOW + 60]), Reason.WRONG_CLAIMS),
    ("exp in milliseconds", lambda: told(exp=(NOW + 60) * 1000), Reason.WRONG_CLAIMS),
    ("exp huge", lambda: told(exp=10**30), Reason.WRONG_CLAIMS),
    ("exp a huge float", lambda: raw_claims(f'{{{EXP}, "exp": 1e308}}'), Reason.WRONG_CLAIMS),
    ("exp past all floats", lambda: raw_claims(f'{{{EXP}, "exp": 1e400}}'), Reason.WRONG_CLAIMS),
    ("exp negative", lambda: told(exp=-1), Reason.WRONG_CLAIMS),
    ("exp a float long ago", lambda: told(iat=None, exp=1.5), Reason.EXPIRED),
    ("nbf ahead", lambda: told(nbf=NOW + 600), Reason.NOT_YET_VALID),
    ("nbf text", lambda: told(nbf="0"), Reason.WRONG_CLAIMS),
    ("iat ahead", lambda: told(iat=NOW + 600), Reason.NOT_YET_VALID),
    ("iat after exp", lambda: told(iat=NOW + 7200), Reason.WRONG_CLAIMS),
    ("aud of another", lambda: told(aud="other"), Reason.WRONG_AUDIENCE),
    ("aud missing", lambda: told(aud=None), Reason.WRONG_AUDIENCE),
    ("aud a prefix", lambda: told(aud="llm-proxy/"), Reason.WRONG_AUDIENCE),
    ("aud in capitals", lambda: told(aud="LLM-PROXY"), Reason.WRONG_AUDIENCE),
    ("aud a list of others", lambda: told(aud=["a", "b"]), Reason.WRONG_AUDIENCE),
    ("aud a list in a list", lambda: told(aud=[["llm-proxy"]]), Reason.WRONG_AUDIENCE),
    ("aud an empty list", lambda: told(aud=[]), Reason.WRONG_AUDIENCE),
    ("aud an object", lambda: told(aud={"llm-proxy": 1}), Reason.WRONG_AUDIENCE),
    ("iss of another", lambda: told(iss="https://evil.example"), Reason.UNKNOWN_ISSUER),
    ("iss with a slash more", lambda: told(iss=f"{ISSUER}/"), Reason.UNKNOWN_ISSUER),
    ("iss in capitals", lambda: told(iss=ISSUER.upper()), Reason.UNKNOWN_ISSUER),
    ("iss with a user in it", lambda: told(iss="https://login.example.com@evil"), Reason.UNKNOWN_ISSUER),
    ("iss with a Cyrillic letter", lambda: told(iss="https://login.ex\u0430mple.com"),
     Reason.UNKNOWN_ISSUER),
    ("iss with a lone surrogate", lambda: told(iss=f"{ISSUER}\ud800"), Reason.UNKNOWN_ISSUER),
    ("iss missing", lambda: told(iss=None), Reason.UNKNOWN_ISSUER),
    ("iss a list", lambda: told(iss=[ISSUER]), Reason.UNKNOWN_ISSUER),
    ("sub of nobody", lambda: told(sub="nobody"), Reason.UNKNOWN_AGENT),
    ("sub with a Cyrillic letter", lambda: told(sub="b\u043et"), Reason.UNKNOWN_AGENT),
    ("sub in capitals", lambda: told(sub="BOT"), Reason.UNKNOWN_AGENT),
    ("sub with a zero-width joiner", lambda: told(sub="bot\u200d"), Reason.WRONG_CLAIMS),
    ("sub with a NUL", lambda: told(sub="bot\0"), Reason.WRONG_CLAIMS),
    ("sub a number", lambda: told(sub=1), Reason.WRONG_CLAIMS),
    ("sub a list", lambda: told(sub=["bot"]), Reason.WRONG_CLAIMS),
    ("sub empty", lambda: told(sub=""), Reason.WRONG_CLAIMS),
    ("sub missing", lambda: told(sub=None), Reason.WRONG_CLAIMS),
    ("sub of 300 characters", lambda: told(sub="b" * 300), Reason.WRONG_CLAIMS),
    ("act of depth 9", lambda: told(act=acting(9)), Reason.WRONG_CLAIMS),
    ("act of depth 100", lambda: told(act=acting(100)), Reason.WRONG_CLAIMS),
    ("act text", lambda: told(act="bot"), Reason.WRONG_CLAIMS),
    ("act of nobody", lambda: told(act={}), Reason.WRONG_CLAIMS),
    ("act with a line break", lambda: told(act={"sub": "a\nb"}), Reason.WRONG_CLAIMS),
]  # fmt: skip


@pytest.mark.parametrize(("shown", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_hostile_token_is_refused_for_its_reason(
    shown: str | Callable[[], str], reason: Reason
) -> None:
    made = shown if isinstance(shown, str) else shown()
    async with serving(*PUBLISHED) as jwks:
        tokens = tokens_of(jwks, issuer())
        assert (await tokens.caller(GOOD)).agent.id == "bot"
        began = time.perf_counter()
        counted, message = await refusal(tokens, made)
        assert time.perf_counter() - began < 0.5
        assert counted == reason
        assert made[-30:] not in message, "the message repeats the token"
        assert message.isprintable()
        assert len(message) < 500
        assert (await tokens.caller(GOOD)).agent.id == "bot"


def test_there_are_many_of_them() -> None:
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names) > 100
    assert {reason for _, _, reason in CASES} == set(Reason)


@given(st.one_of(st.text(), st.text(alphabet="eyJ0.-_A1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(TokenFault):
        read_token(text)


def _near_misses() -> Iterator[dict[str, Any]]:
    """Key sets' entries that are nearly a key."""
    whole = RSA.jwk
    for name in whole:
        for value in (None, "", 7, [], {}, "!!", "AAAA", "A" * 20_000):
            yield whole | {name: value}
        yield {k: v for k, v in whole.items() if k != name}
    for curve in ("P-256", "P-384", "P-521", "secp256k1", "Ed25519", "Ed448", ""):
        for kty in ("EC", "OKP", "RSA", "oct"):
            yield {"kty": kty, "crv": curve, "x": "AAAA", "y": "AAAA"}
            yield EC.jwk | {"kty": kty, "crv": curve}
            yield ED.jwk | {"kty": kty, "crv": curve}


def test_entries_of_a_key_set_that_are_no_good_keys_are_skipped() -> None:
    """Whatever the entry, the good keys beside it are read."""
    for entry in _near_misses():
        found = read_key_set(json.dumps({"keys": [entry, EC384.jwk]}).encode())
        assert found.keys[-1].id == "ec-3"
    weak = {"kty": "RSA", "kid": "weak", "e": "AQAB", "n": b64(b"\xc5" * 128)}
    private = RSA.jwk | {"d": "AAAA"}
    secret = {"kty": "oct", "kid": "s", "k": "AAAA", "alg": "HS256"}
    encrypting, bundled = RSA.jwk | {"use": "enc"}, RSA.jwk | {"use": "jwt-svid"}
    entries = [weak, private, secret, encrypting, RSA.jwk | {"use": "x509-svid"}, 7, None, bundled]
    found = read_key_set(json.dumps({"keys": entries}).encode())
    assert ([key.id for key in found.keys], found.skipped) == (["rsa-1"], 7)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_it(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"JWK set|no JSON"):
        read_key_set(raw)
