"""The proxy's own key: one file, one key however many start at once, and nobody else's to read."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from llm_proxy.signing import KeyFileError, SigningKey, load_or_make, open_to_others


def _id_of(path: str) -> str:
    return load_or_make(Path(path)).id


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.pem"
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        ids = pool.map(_id_of, [str(path)] * 32)
    assert set(ids) == {load_or_make(path).id}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]
    assert not open_to_others(path)
    path.chmod(0o640)
    assert open_to_others(path)


def test_it_signs_and_its_id_is_the_thumbprint_of_rfc_8037(tmp_path: Path) -> None:
    key = load_or_make(tmp_path / "key.pem")
    ed25519.Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"said"), b"said")
    with pytest.raises(InvalidSignature):
        ed25519.Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"said"), b"other")
    raw = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    example = SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(raw))  # RFC 8037, appendix A
    assert example.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert example.jwk() == {
        "crv": "Ed25519",
        "kty": "OKP",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": example.id,
        "alg": "EdDSA",
        "use": "sig",
    }


def _rsa() -> bytes:
    made = rsa.generate_private_key(65_537, 2_048)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "no private key"), (b"x" * 50, "no private key"), (_rsa(), "another kind")]
)
def test_a_file_that_holds_no_such_key_is_said_and_kept(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=said) as error:
        load_or_make(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="openssl genpkey"):
        load_or_make(tmp_path / "file" / "key.pem")
