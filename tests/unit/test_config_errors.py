"""A bad proxy.yaml: every complaint has line, column, key and what to do, and none hides another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.config import AgentConfig, BudgetConfig, ConfigErrors, ModelConfig, TargetConfig, load_config
from llm_proxy.config.schema import ConfigFile, ServerConfig
from llm_proxy.yamlpos import Issue

T = "{id: t, provider: openai, base_url: 'http://u/v1'}"
M = f"models: {{m: {{targets: [{T}]}}}}\n"


def issues(directory: Path, text: str, environ: dict[str, str] | None = None) -> tuple[Issue, ...]:
    path = directory / "proxy.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load_config(path, environ or {})
    return caught.value.issues


# (name, file, line, column, key, part of the message)
CASES: list[tuple[str, str, int, int, str, str]] = [
    ("unknown top key", "moddels: {}", 1, 1, "moddels", "unknown key: did you mean 'models'?"),
    ("unknown nested key", "server:\n  prot: 1", 2, 3, "server.prot", "unknown key: did you mean 'port'?"),
    ("own field of Config", "config_sha256: x", 1, 1, "config_sha256", "unknown key"),
    ("unknown key that is null", "server:\n  prot:", 2, 3, "server.prot", "unknown key"),
    ("unknown target key", f"models:\n  m:\n    targets: [{T[:-1]}, modle: x}}]", 3, 66,
     "models.m.targets[0].modle", "did you mean 'model'?"),
    ("unknown budget key", "budgets:\n- {id: b, window: day, uds: 1}", 2, 24, "budgets[0].uds", "'usd'"),
    ("written twice", "store: sqlite:///a\nstore: sqlite:///b", 2, 1, "store", "written twice"),
    ("not YAML", "server: {port: 1", 1, 17, "", "not valid YAML"),
    ("not a mapping", "- a", 1, 1, "", "must be a mapping"),
    ("section of a wrong shape", "server: [1]", 1, 1, "server", "mapping of keys; known here: host, port"),
    ("list of a wrong shape", "agents: {a: {models: gpt}}", 1, 14, "agents.a.models", "must be a list"),
    ("table of a wrong shape", "models: [1]", 1, 1, "models", "must be a mapping of names"),
    ("number where text belongs", "agents: {a: {owner: 12}}", 1, 14, "agents.a.owner", "put it in quotes"),
    ("port", "server: {port: 65536}", 1, 10, "server.port", "less than or equal to 65535"),
    ("port that is a switch", "server: {port: true}", 1, 10, "server.port", "must be a number"),
    ("admin token file", "server: {admin_token: 'file:gone'}", 1, 10, "server.admin_token", "can't be read"),
    ("store scheme", "store: mysql://u:p@h/d", 1, 1, "store", "sqlite:///FILE or postgresql://"),
    ("store slashes", "store: sqlite://a.db", 1, 1, "store", "three slashes"),
    ("store in memory", "store: 'sqlite:///:memory:'", 1, 1, "store", "must name a file"),
    ("store port", "store: postgresql://h:x/d", 1, 1, "store", "not a valid postgresql:// URL"),
    ("durability", "records: {durability: strikt}", 1, 11, "records.durability", "did you mean 'strict'?"),
    ("content", "records: {content: some}", 1, 11, "records.content", "redacted"),
    ("retention", "records: {retention_days: 0}", 1, 11,
     "records.retention_days", "greater than or equal to 1"),
    ("signing key", "records: {signing_key: key.pem}", 1, 11, "records.signing_key", "must be file:PATH"),
    ("endpoint scheme", "telemetry: {otlp_endpoint: 'h:4317'}", 1, 13, "telemetry.otlp_endpoint", "http://"),
    ("protocol", "telemetry: {protocol: gprc}", 1, 13, "telemetry.protocol", "did you mean 'grpc'?"),
    ("unpriced", "unpriced: free-for-all", 1, 1, "unpriced", "must be 'refuse' or 'free'"),
    ("translation", "translation: lax", 1, 1, "translation", "must be 'lenient' or 'strict'"),
    ("issuers", "identity: {issuers: [{issuer: x, jwks: 'https://h', audiense: y, audience: y}]}", 1, 53,
     "identity.issuers[0].audiense", "did you mean 'audience'?"),
    ("unknown event", "webhooks: [{id: w, url: 'http://x', secret: s, events: [budget.warn]}]", 1, 57,
     "webhooks[0].events[0]", "is no event: did you mean 'budget.warned'?"),
    ("webhook without a secret", "webhooks: [{id: w, url: 'http://x', secret: ''}]", 1, 37,
     "webhooks[0].secret", "is empty"),
    ("broken webhook secret", "webhooks: [{id: w, url: 'http://x', secret: 'whsec_?'}]", 1, 37,
     "webhooks[0].secret", "not base64"),
    ("webhook with credentials in its address", "webhooks: [{id: w, url: 'http://a:b@x', secret: s}]", 1, 20,
     "webhooks[0].url", "must hold no user or password"),
    ("downgrade to no model", M + "budgets: [{id: b, window: day, usd: 1, on_exceed: {downgrade: n}}]", 2, 52,
     "budgets[0].on_exceed.downgrade", "no model is named 'n': known are m"),
    ("to itself", M + "budgets: [{id: b, model: m, window: day, usd: 9, on_exceed: {downgrade: m}}]",
     2, 62, "budgets[0].on_exceed.downgrade", "is the very model"),
    ("price field", "prices: {m: {input_cost_per_tokn: 1}}", 1, 14,
     "prices.m.input_cost_per_tokn", "did you mean"),
    ("price of nothing", "prices: {m: {max_tokens: 1}}", 1, 10, "prices.m", "prices nothing"),
    ("negative price", "prices: {m: {input_cost_per_token: -1}}", 1, 14,
     "prices.m.input_cost_per_token", "equal to 0"),
    ("strategy unheard of", f"models: {{m: {{strategy: waited, targets: [{T}]}}}}", 1, 14,
     "models.m.strategy", "did you mean 'weighted'?"),
    ("strategy misspelt", f"models: {{m: {{strategy: orderd, targets: [{T}]}}}}", 1, 14,
     "models.m.strategy", "did you mean 'ordered'?"),
    ("no targets", "models: {m: {targets: []}}", 1, 14, "models.m.targets", "at least one target"),
    ("targets absent", "models:\n  m: {retries: 1}", 2, 3, "models.m.targets", "is required"),
    ("no Anthropic key", "models: {m: {targets: [{id: t, provider: anthropic}]}}", 1, 24,
     "models.m.targets[0]", "needs an api_key for api.anthropic.com"),
    ("dialects of litellm",
     "models: {m: {targets: [{id: t, provider: vertex_ai, dialects: [openai_chat]}]}}", 1, 24,
     "models.m.targets[0]", "leave it out of vertex_ai"),
    ("unknown dialect", f"models: {{m: {{targets: [{T[:-1]}, dialects: [openai]}}]}}}}", 1, 86,
     "models.m.targets[0].dialects[0]", "openai_chat"),
    ("default", "default_model: gpt\nmodels: {gpt-x: {targets: [{id: t, provider: anthropic, api_key: k}]}}",
     1, 1, "default_model", "did you mean 'gpt-x'?"),
    ("provider misspelt", "models: {m: {targets: [{id: t, provider: opnai}]}}", 1, 32,
     "models.m.targets[0].provider", "did you mean 'openai'?"),
    ("no API key", "models: {m: {targets: [{id: t, provider: openai}]}}", 1, 24,
     "models.m.targets[0]", "needs an api_key"),
    ("scripted without script", "models: {m: {targets: [{id: t, provider: scripted}]}}", 1, 24,
     "models.m.targets[0]", "needs script:"),
    ("script of another provider", f"models: {{m: {{targets: [{T[:-1]}, script: proxy.yaml}}]}}}}", 1, 24,
     "models.m.targets[0]", "leave it out of provider openai"),
    ("script gone", "models: {m: {targets: [{id: t, provider: scripted, script: gone}]}}", 1, 52,
     "models.m.targets[0].script", "does not exist"),
    ("base_url scheme", "models: {m: {targets: [{id: t, provider: openai, base_url: 'ftp://h'}]}}", 1, 50,
     "models.m.targets[0].base_url", "http:// or https://"),
    ("base_url port", "models: {m: {targets: [{id: t, provider: openai, base_url: 'http://h:99999'}]}}",
     1, 50, "models.m.targets[0].base_url", "not a valid address"),
    ("target id", "models: {m: {targets: [{id: 'a b', provider: openai, base_url: 'http://h'}]}}", 1, 25,
     "models.m.targets[0].id", "1 to 128 letters"),
    ("target id twice", f"models:\n  m: {{targets: [{T}]}}\n  n: {{targets: [{T}]}}", 3, 18,
     "models.n.targets[0].id", "'t' is taken by models.m.targets[0].id in line 2"),
    ("fallback", f"models: {{model-a: {{targets: [{T}], fallbacks: [model-b]}}}}", 1, 95,
     "models.model-a.fallbacks[0]", "no model is named 'model-b': did you mean 'model-a'?"),
    ("timeout", f"models: {{m: {{targets: [{T}], timeouts: {{idle_s: 0}}}}}}", 1, 88,
     "models.m.timeouts.idle_s", "greater than 0"),
    ("retries", f"models: {{m: {{targets: [{T}], retries: -1}}}}", 1, 77, "models.m.retries", "equal to 0"),
    ("agent's name", "agents:\n  '*': {}", 2, 3, "agents.*", "1 to 128 letters"),
    ("empty key", "agents: {a: {keys: ['']}}", 1, 21, "agents.a.keys[0]", "is empty"),
    ("hash of a wrong length", "agents: {a: {keys: ['sha256:ab']}}", 1, 21,
     "agents.a.keys[0]", "64 hex digits"),
    ("shared key", "agents:\n  a: {keys: [same-same-same-same]}\n  b: {keys: [same-same-same-same]}", 3, 14,
     "agents.b.keys[0]", "same credential as agents.a.keys[0] in line 2"),
    ("shared with an operator", "agents: {a: {keys: [abc]}}\noperators:\n- {id: o, token: abc}", 3, 11,
     "operators[0].token", "same credential as agents.a.keys[0] in line 1"),
    ("budget id twice", "budgets:\n- {id: b, window: day, usd: 1}\n- {id: b, window: run, usd: 1}", 3, 4,
     "budgets[1].id", "'b' is taken by budgets[0].id in line 2"),
    ("window", "budgets: [{id: b, window: dya, usd: 1}]", 1, 19, "budgets[0].window", "did you mean 'day'?"),
    ("time zone", "budgets: [{id: b, window: day, usd: 1, timezone: Europe/Pariss}]", 1, 40,
     "budgets[0].timezone", "did you mean 'Europe/Paris'?"),
    ("no maximum", "budgets:\n- {id: b, window: day}", 2, 3, "budgets[0]", "limits nothing"),
    ("finer than a micro-dollar", "budgets: [{id: b, window: day, usd: 0.0000001}]", 1, 32,
     "budgets[0].usd", "at most 6 decimals"),
    ("no money", "budgets: [{id: b, window: day, usd: some}]", 1, 32, "budgets[0].usd", "decimal"),
    ("warn_at", "budgets: [{id: b, window: day, usd: 1, warn_at: 80}]", 1, 40,
     "budgets[0].warn_at", "equal to 1"),
    ("role", "operators: [{id: o, roles: [approvr]}]", 1, 29, "operators[0].roles[0]", "'approver'?"),
    ("operator twice", "operators: [{id: o}, {id: o}]", 1, 23, "operators[1].id", "keep one entry"),
    ("policy gone", "policy: gone.yaml", 1, 1, "policy", "does not exist"),
    ("policy is a directory", "policy: .", 1, 1, "policy", "is a directory"),
    ("variable unset", "server: {host: '${HOST_NAME}'}", 1, 16, "server.host",
     "needs the environment variable HOST_NAME, which is not set: export HOST_NAME="),
    ("variable empty", "server: {host: '${EMPTY}'}", 1, 16, "server.host", "EMPTY, which is set but empty"),
    ("reference malformed", "server: {host: '${HOST'}", 1, 16, "server.host", "write $$"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_one_complaint_at_its_place(
    tmp_path: Path, text: str, line: int, column: int, key: str, said: str
) -> None:
    (issue,) = issues(tmp_path, text, {"EMPTY": ""})
    assert (issue.line, issue.column, issue.key) == (line, column, key)
    assert said in issue.message
    assert str(issue).startswith(f"{tmp_path / 'proxy.yaml'}:{line}:{column}:")


def test_everything_is_told_at_once_in_file_order(tmp_path: Path) -> None:
    text = f"""\
server: {{port: 99999, admin_token: "${{MISSING}}"}}
models:
  a: {{targets: [{T}], fallbacks: [nowhere]}}
  b: {{targets: [{T}], retries: x}}
agents:
  one: {{keys: [a-key-that-two-agents-share]}}
  two: {{keys: [a-key-that-two-agents-share]}}
budgets:
  - {{id: b, window: day, usd: 1}}
  - {{id: b, window: never, usd: 1}}
polcy: x
"""
    found = [(issue.line, issue.key) for issue in issues(tmp_path, text)]
    assert found == [
        (1, "server.port"),
        (1, "server.admin_token"),
        (3, "models.a.fallbacks[0]"),
        (4, "models.b.targets[0].id"),
        (4, "models.b.retries"),
        (7, "agents.two.keys[0]"),
        (10, "budgets[1].id"),
        (10, "budgets[1].window"),
        (11, "polcy"),
    ]


def test_a_missing_variable_is_told_once_and_nothing_else_about_its_key(tmp_path: Path) -> None:
    found = issues(tmp_path, "server: {port: '${PORT}'}\nstore: '${STORE}'\npolicy: '${POLICY}'\n")
    assert [issue.key for issue in found] == ["server.port", "store", "policy"]
    assert all("needs the environment variable" in issue.message for issue in found)


def test_a_file_that_is_not_text_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_bytes(b"store: \xff\n")
    with pytest.raises(ConfigErrors, match="is not UTF-8"):
        load_config(path, {})
    with pytest.raises(ConfigErrors, match="can't be read"):
        load_config(tmp_path / "gone.yaml", {})


_WORDS = st.sampled_from(
    [
        "a",
        "m",
        "t",
        "*",
        "",
        "day",
        "openai",
        "scripted",
        "sha256:00",
        "file:x",
        "${X}",
        "http://h",
        "ordered",
    ]
)
_SECTIONS = (ConfigFile, ServerConfig, ModelConfig, TargetConfig, AgentConfig, BudgetConfig)
_KEYS = st.sampled_from(["a", "m", "", *(key for section in _SECTIONS for key in section.model_fields)])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.dictionaries(st.sampled_from([*ConfigFile.model_fields, "a"]), _VALUES, max_size=4))
def test_whatever_a_file_holds_it_loads_or_every_complaint_has_a_place(
    tmp_path: Path, data: dict[str, object]
) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(json.dumps(data, indent=1), "utf-8")
    lines = len(path.read_text("utf-8").splitlines())
    try:
        found = load_config(path, {}).warnings
        known = set(data) <= set(ConfigFile.model_fields)
    except ConfigErrors as refused:
        found = refused.issues
        known = bool(found)
    assert known
    assert all(1 <= issue.line <= lines and issue.message for issue in found)
