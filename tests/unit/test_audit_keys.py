"""Public keys as an auditor may bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from llm_proxy.admin.audit import keys_of
from llm_proxy.admin.errors import Unclear
from llm_proxy.audit.checkpoint import Checkpoint, problem_of, read_checkpoint, signed_body
from llm_proxy.audit.keys import BadKey, public_keys
from llm_proxy.records.started import Place
from llm_proxy.signing import SigningKey

KEY = SigningKey.new()


def _spki(public: object) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "written",
    [
        KEY.pem(),
        _spki(Ed25519PublicKey.from_public_bytes(KEY.public)),
        json.dumps(KEY.jwk()).encode(),
        json.dumps({"keys": [{"kty": "RSA"}, KEY.jwk()]}).encode(),
    ],
    ids=["private", "public", "jwk", "set"],
)
def test_a_key_may_be_written_in_any_of_these_ways(tmp_path: Path, written: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(written)
    assert public_keys(file) == {KEY.id: KEY.public}
    assert keys_of([], file) == keys_of([KEY.id], file) == keys_of([str(file)], tmp_path / "none")


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b'{"keys": []}',
        b'{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}',
        b'{"kty": "OKP", "crv": "Ed25519", "x": "%%%"}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        _spki(generate_private_key(SECP256R1()).public_key()),
    ],
)
def test_what_holds_no_key_is_refused(tmp_path: Path, written: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(written)
    with pytest.raises(BadKey, match="Ed25519"):
        public_keys(file)
    with pytest.raises(Unclear):
        keys_of([str(file)], file)
    with pytest.raises(Unclear):
        keys_of(["no-such-key"], tmp_path / "none")


def test_a_signature_covers_everything() -> None:
    told = Checkpoint(at_us=5, key=KEY.id, previous=None, heads=(Place("w", 3, "aa"), Place("x", 4, "bb")))
    signed = json.loads(signed_body(told, KEY))

    def problem(**changed: object) -> str:
        return problem_of(read_checkpoint(json.dumps(signed | changed)), {KEY.id: KEY.public})

    assert problem() == ""
    changes: list[dict[str, object]] = [
        {"at_us": 6},
        {"previous": ["w", 1, "cc"]},
        {"heads": [["w", 3, "aa"]]},
        {"heads": [["x", 4, "bb"], ["w", 3, "aa"]]},
        {"heads": [["w", 4, "aa"], ["x", 4, "bb"]]},
        {"signature": ""},
        {"signature": "!"},
        {"signature": signed["signature"][:-3] + "AAA"},
    ]
    assert [problem(**change) for change in changes] == ["its signature is wrong"] * len(changes)
    assert "which was not given" in problem(key="another")
