"""A good proxy.yaml becomes the right Config: the documented example, defaults, paths and expansion."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from budgets.amounts import Unit
from llm_proxy.config import Config, ConfigErrors, find_config, load_config
from llm_proxy.config.choices import Durability, Role, Unpriced
from llm_proxy.config.expand import ExpansionError, expand

ENVIRON = {
    "LLM_PROXY_ADMIN_TOKEN": "admin-token-of-some-length",
    "OPENAI_API_KEY": "sk-upstream",
    "TRIAGE_BOT_KEY": "lp-triage-bot-key-0001",
}

EXAMPLE = """
server:
  host: 127.0.0.1
  port: 4000
  admin_token: ${LLM_PROXY_ADMIN_TOKEN}
  max_body_mb: 32
  environment: prod
  drain_s: 20
store: sqlite:///llm-proxy.db
records:
  durability: strict
  content: full
  retention_days: 90
  signing_key: file:keys/signing.pem
telemetry:
  otlp_endpoint: http://127.0.0.1:4318
  protocol: http/protobuf
  service_name: llm-proxy
unpriced: refuse
identity: {issuers: []}
webhooks: []
translation: lenient
prices: {gpt-x: {input_cost_per_token: 1e-6, output_cost_per_token: 2e-6}}
models:
  gpt-4o-mini:
    strategy: ordered
    targets:
      - {id: openai, provider: openai, model: gpt-4o-mini, api_key: "${OPENAI_API_KEY}"}
      - {id: local, provider: openai, model: llama-3.3-70b, base_url: "http://127.0.0.1:8000/v1/", weight: 1}
    fallbacks: [claude-haiku]
    timeouts: {connect_s: 5, first_event_s: 60, idle_s: 60, total_s: 600}
    retries: 2
  claude-haiku:
    targets:
      - {id: demo, provider: scripted, script: demo.yaml}
agents:
  triage-bot:
    owner: support-platform@example.com
    team: support
    role: support
    keys: ["${TRIAGE_BOT_KEY}"]
    models: [gpt-4o-mini, "claude-*"]
    require_run: false
    tools: ["*"]
    scopes: {repos: [acme/web]}
budgets:
  - {id: triage-daily, agent: triage-bot, window: day, usd: 5.00, tokens: 2_000_000, requests: 5000,
     tool_calls: 500, writes: 50, warn_at: 0.8}
  - {id: per-run, agent: "*", window: run, usd: 0.50, requests: 60, tool_calls: 40, writes: 8}
  - {id: company-month, window: month, timezone: UTC, usd: 2000}
operators:
  - {id: dana@example.com, groups: [support-leads], roles: [approver, investigator],
     token: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
policy: policy.yaml
"""


def write(directory: Path, text: str, name: str = "proxy.yaml") -> Path:
    path = directory / name
    path.write_text(text, "utf-8")
    return path


def load(directory: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    return load_config(write(directory, text), environ or {})


@pytest.fixture
def example(tmp_path: Path) -> Config:
    write(tmp_path, "policy: {}", "policy.yaml")
    write(tmp_path, "replies: []", "demo.yaml")
    return load(tmp_path, EXAMPLE, ENVIRON)


def test_the_documented_example_loads_and_has_nothing_to_warn_of(example: Config) -> None:
    assert example.warnings == ()
    assert example.server.port == 4000
    assert example.server.admin_token is not None
    assert example.server.admin_token.matches("admin-token-of-some-length")
    assert example.records.durability is Durability.STRICT
    assert example.unpriced is Unpriced.REFUSE
    assert example.prices["gpt-x"].input_cost_per_token == 1e-6
    first, second = example.models["gpt-4o-mini"].targets
    assert first.api_key is not None
    assert first.api_key.get_secret_value() == "sk-upstream"
    assert second.base_url == "http://127.0.0.1:8000/v1"
    agent = example.agents["triage-bot"]
    assert agent.keys[0].sha256 == hashlib.sha256(b"lp-triage-bot-key-0001").hexdigest()
    assert agent.scopes == {"repos": ("acme/web",)}
    assert example.operators[0].roles == (Role.APPROVER, Role.INVESTIGATOR)


def test_budgets_become_integer_maxima(example: Config) -> None:
    daily, run, month = example.budgets
    assert daily.usd == Decimal(5)
    assert daily.maximum == {
        Unit.USD: 5_000_000,
        Unit.TOKENS: 2_000_000,
        Unit.REQUESTS: 5000,
        Unit.TOOL_CALLS: 500,
        Unit.WRITES: 50,
    }
    assert run.maximum[Unit.USD] == 500_000
    assert month.agent is None
    assert month.timezone == "UTC"


def test_files_are_relative_to_the_config_file(example: Config, tmp_path: Path) -> None:
    assert example.policy == tmp_path / "policy.yaml"
    assert example.records.signing_key == tmp_path / "keys" / "signing.pem"
    assert example.models["claude-haiku"].targets[0].script == tmp_path / "demo.yaml"


def test_the_hash_is_that_of_the_file(example: Config, tmp_path: Path) -> None:
    assert example.path == tmp_path / "proxy.yaml"
    assert example.config_sha256 == hashlib.sha256((tmp_path / "proxy.yaml").read_bytes()).hexdigest()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "# nothing yet\n")
    assert (config.server.host, config.server.port, config.server.drain_s) == ("127.0.0.1", 4000, 20)
    assert config.server.admin_token is None
    assert config.store.get_secret_value() == "sqlite:///llm-proxy.db"
    assert config.telemetry.otlp_endpoint is None
    assert config.records.retention_days == 90
    assert config.policy is None


def test_keys_left_empty_take_their_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "server:\nrecords: {retention_days: }\nagents:\n  a:\nbudgets:\nprices: ~\n")
    assert config.server.port == 4000
    assert config.records.retention_days == 90
    assert config.agents["a"].models == ()
    assert config.agents["a"].tools == ("*",)
    assert config.budgets == ()


def test_the_config_is_frozen(example: Config) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(example.server, "port", 1)  # noqa: B010 (a plain assignment is a type error, as it should be)


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("postgresql://u:p@db/llm", "postgresql+psycopg://u:p@db/llm"),
        ("postgres://u:p@db:5433/llm", "postgresql+psycopg://u:p@db:5433/llm"),
        ("postgresql+psycopg:///llm?host=/run/postgresql", "postgresql+psycopg:///llm?host=/run/postgresql"),
        ("sqlite:///relative.db", "sqlite:///relative.db"),
        ("sqlite:////var/lib/llm.db", "sqlite:////var/lib/llm.db"),
    ],
)
def test_store_urls_take_the_engines_form(tmp_path: Path, written: str, used: str) -> None:
    assert load(tmp_path, f"store: {written}").store.get_secret_value() == used


def test_numbers_and_switches_may_come_from_the_environment(tmp_path: Path) -> None:
    text = (
        "server: {port: '${PORT}', drain_s: '${DRAIN:-1.5}'}\n"
        "agents: {a: {require_run: '${STRICT}'}}\n"
        "budgets: [{id: b, window: day, usd: '${USD}', tokens: '${TOKENS}'}]\n"
    )
    environ = {"PORT": "8080", "STRICT": "true", "USD": "0.000001", "TOKENS": "2_000_000"}
    config = load(tmp_path, text, environ)
    assert (config.server.port, config.server.drain_s) == (8080, 1.5)
    assert config.agents["a"].require_run is True
    assert config.budgets[0].maximum == {Unit.USD: 1, Unit.TOKENS: 2_000_000}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "one"),
        ("x-${A}-${A}", "x-one-one"),
        ("${NONE:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${A:-two}", "one"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$one"),
        ("cost $5 and $A", "cost $5 and $A"),
        ("${DOLLAR}", "${A}"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "one", "EMPTY": "", "DOLLAR": "${A}"}) == result


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1A}", "${A B}", "${A-b}", "${A:-${B}}", "${A:=b}"])
def test_malformed_references_are_errors(text: str) -> None:
    with pytest.raises(ExpansionError, match=r"write \$\$ for a plain dollar"):
        expand(text, {"A": "one", "B": "two"})


@given(st.text())
def test_doubled_dollars_keep_any_text_as_it_is(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


def test_find_config_takes_the_option_then_the_variable_then_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, named, other = (write(tmp_path, "", name) for name in ("proxy.yaml", "named.yaml", "other.yaml"))
    monkeypatch.chdir(tmp_path)
    environ = {"LLM_PROXY_CONFIG": str(named)}
    assert find_config(other, environ) == other
    assert find_config(None, environ) == named
    assert find_config(None, {}).resolve() == here


@pytest.mark.parametrize(
    ("option", "environ", "said"),
    [
        (None, {}, "proxy.yaml:1:1: does not exist (no --config was given): run `llm-proxy init`"),
        (
            None,
            {"LLM_PROXY_CONFIG": "gone.yaml"},
            "gone.yaml:1:1: does not exist ($LLM_PROXY_CONFIG names it)",
        ),
        (Path("lost.yaml"), {}, "lost.yaml:1:1: does not exist (--config names it)"),
        (Path(), {}, ".:1:1: is a directory"),
    ],
)
def test_a_missing_config_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: Path | None,
    environ: dict[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigErrors) as caught:
        find_config(option, environ)
    assert str(caught.value).startswith(said)
