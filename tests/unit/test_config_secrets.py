"""Secrets come from text, the environment or a file, and appear in no repr, dump, error or warning."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llm_proxy.config import Config, ConfigErrors, KeyDigest, load_config

SECRETS = {
    "ADMIN": "admin-secret-0123456789",
    "UPSTREAM": "sk-upstream-0123456789",
    "AGENT": "lp-agent-0123456789",
    "PERSON": "op-person-0123456789",
    "DB": "db-password-0123456789",
}

TEXT = """\
server: {admin_token: "${ADMIN}"}
store: postgresql://proxy:${DB}@db/llm
models:
  m:
    targets: [{id: t, provider: openai, api_key: "${UPSTREAM}"}]
agents:
  a: {keys: ["${AGENT}"], models: [m]}
operators:
  - {id: o, token: "${PERSON}"}
"""


def load(directory: Path, text: str, environ: dict[str, str]) -> Config:
    path = directory / "proxy.yaml"
    path.write_text(text, "utf-8")
    return load_config(path, environ)


def hidden(text: str) -> bool:
    digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in SECRETS.values()]
    return not any(secret in text for secret in [*SECRETS.values(), *digests])


def test_nothing_that_prints_a_config_shows_a_secret(tmp_path: Path) -> None:
    config = load(tmp_path, TEXT, SECRETS)
    assert config.server.admin_token is not None
    assert config.server.admin_token.matches(SECRETS["ADMIN"])
    assert config.operators[0].token == KeyDigest.of(SECRETS["PERSON"])
    assert SECRETS["DB"] in config.store.get_secret_value()
    for shown in (repr(config), str(config), config.model_dump_json(), str(config.model_dump(mode="json"))):
        assert hidden(shown)


def test_the_stores_address_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "store-url").write_text(f"postgresql://proxy:{SECRETS['DB']}@db/llm\n")
    config = load(tmp_path, TEXT.replace("postgresql://proxy:${DB}@db/llm", "file:store-url"), SECRETS)
    assert config.store.get_secret_value() == f"postgresql+psycopg://proxy:{SECRETS['DB']}@db/llm"
    assert hidden(repr(config))
    (tmp_path / "store-url").write_text(f"mysql://proxy:{SECRETS['DB']}@db/llm")
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, "store: file:store-url", {})
    assert hidden(str(caught.value))
    assert "sqlite:///FILE" in caught.value.issues[0].message


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    broken = TEXT.replace("models: [m]", "models: [m], keyz: x") + "prices: 1\n"
    broken = broken.replace("postgresql://", "mysql://").replace("{id: t,", "{id: t, weight: '${UPSTREAM}',")
    broken = broken.replace("{id: o,", "{id: o, roles: ['${PERSON}'],") + "unpriced: ${ADMIN}\n"
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, broken, SECRETS)
    assert len(caught.value.issues) == 6
    assert hidden(str(caught.value))
    assert hidden(repr(caught.value.issues))


def test_a_credential_used_twice_is_told_without_showing_it(tmp_path: Path) -> None:
    doubled = TEXT.replace("  a:", '  b: {keys: ["${AGENT}"], models: [m]}\n  a:')
    with pytest.raises(ConfigErrors, match="same credential") as caught:
        load(tmp_path, doubled, SECRETS)
    assert hidden(str(caught.value))


def test_a_hash_stands_for_its_key(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"lp-agent-0123456789").hexdigest().upper()
    config = load(tmp_path, f"agents: {{a: {{keys: ['sha256:{digest}']}}}}", {})
    assert config.agents["a"].keys[0].matches("lp-agent-0123456789")
    assert not config.agents["a"].keys[0].matches("lp-agent-012345678")


@pytest.mark.parametrize(
    ("written", "read"),
    [("s3cret-of-a-file", "s3cret-of-a-file"), ("a b\n", "a b"), ("x\r\n", "x"), ("x\n\n", "x\n")],
)
def test_a_secret_file_loses_its_last_newline_only(tmp_path: Path, written: str, read: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_bytes(written.encode())
    text = (
        "server: {admin_token: 'file:secrets/key'}\n"
        "models: {m: {targets: [{id: t, provider: openai, api_key: '${KEY}'}]}}\n"
    )
    config = load(tmp_path, text, {"KEY": f"file:{tmp_path}/secrets/key"})
    key = config.models["m"].targets[0].api_key
    assert key is not None
    assert key.get_secret_value() == read
    assert config.server.admin_token == KeyDigest.of(read)


def test_an_empty_secret_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n", "utf-8")
    with pytest.raises(ConfigErrors, match=r"agents.a.keys\[0\]: names the file .*, which is empty"):
        load(tmp_path, "agents: {a: {keys: ['file:key']}}", {})


def test_an_optional_secret_may_be_left_empty(tmp_path: Path) -> None:
    text = (
        "server: {admin_token: '${ADMIN:-}'}\n"
        "models: {m: {targets: [{id: t, provider: openai, base_url: 'http://h', api_key: '${KEY:-}'}]}}\n"
        "operators: [{id: o, token: '${PERSON:-}'}]\n"
    )
    config = load(tmp_path, text, {})
    assert config.server.admin_token is None
    assert config.models["m"].targets[0].api_key is None
    assert config.operators[0].token is None
