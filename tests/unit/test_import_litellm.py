"""A LiteLLM config becomes a proxy.yaml that loads, with one verdict on every field."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.config.choices import Affinity, OnLeave, StrategyName
from llm_proxy.importing.report import Verdict
from llm_proxy.importing.source import leaves
from llm_proxy.yamlpos import DocumentErrors, dotted, load_yaml
from tests.unit.litellm_import import CONFIGS, catalogue, imported, loaded, row, verdict

NO_CONFIG = "config.yaml:1:1: is no config of LiteLLM's proxy: name the file that holds model_list"
TEAM = (CONFIGS / "team.yaml").read_text()
EVERYTHING = (CONFIGS / "everything.yaml").read_text()
SECRETS = (
    *("sk-live-7f3a9b", "aws-live-secret", "hidden-password", "hidden-query", "gsk-live-secret"),
    *("redis-live-secret", "sk-master-live", "env-live-secret"),
)


def one(params: str, rest: str = "") -> str:
    return f"model_list:\n- model_name: m\n  litellm_params: {{{params}}}\n{rest}\n"


def _examples() -> Iterator[Path]:
    """The configs that come with the litellm package."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "proxy" / "example_config_yaml"
    yield from sorted(folder.glob("*.yaml"))


def test_the_team_config(tmp_path: Path) -> None:
    found = imported(TEAM)
    config = loaded(found, tmp_path)
    gpt, claude = config.models["gpt-4o"], config.models["claude-sonnet"]
    assert (gpt.strategy, gpt.affinity, gpt.retries) == (StrategyName.WEIGHTED, Affinity.NONE, 3)
    assert [(t.id, t.provider, t.model, t.rpm, t.weight) for t in gpt.targets] == [
        ("gpt-4o/azure-1", "azure", "gpt-4o-eu", 600, 3),
        ("gpt-4o/openai-1", "openai", "gpt-4o", 200, 1),
    ]
    assert gpt.targets[0].base_url == "https://eu.openai.azure.com"
    assert (gpt.fallbacks, claude.fallbacks) == (("claude-sonnet",), ())
    assert (gpt.breaker.failures, gpt.breaker.cool_down_s) == (3, 30)
    assert (claude.timeouts.first_event_s, claude.timeouts.idle_s) == (120, 120)
    (budget,) = config.budgets
    assert (budget.agent, budget.window, budget.usd) == (None, "month", 500)
    assert config.server.admin_token is not None
    assert list(config.agents) == ["agent"]
    assert config.agents["agent"].models == ("*",)


def test_the_verdicts_on_the_team_config() -> None:
    found = imported(TEAM)
    params = "model_list[0].litellm_params"
    assert verdict(found, "model_list[0].model_name") == ("exact", "models.gpt-4o")
    assert verdict(found, f"{params}.api_key") == ("exact", "models.gpt-4o.targets[0].api_key")
    assert verdict(found, f"{params}.rpm") == ("approximate", "models.gpt-4o.targets[0].rpm")
    assert verdict(found, f"{params}.api_version") == ("approximate", "environment: AZURE_API_VERSION")
    assert verdict(found, "model_list[1].litellm_params.organization") == ("unsupported", "")
    assert verdict(found, "router_settings.fallbacks[0].gpt-4o[0]") == ("exact", "models.gpt-4o.fallbacks")
    assert verdict(found, "router_settings.cooldown_time") == ("exact", "models.*.breaker.cool_down_s")
    assert verdict(found, "litellm_settings.budget_duration")[0] == "exact"
    assert verdict(found, "general_settings.master_key")[0] == "approximate"
    database = row(found, "general_settings.database_url")
    assert (database.verdict, database.line) == (Verdict.UNSUPPORTED, 38)
    assert "never in LiteLLM's database" in database.note
    added = row(found, "--keys")
    assert (added.verdict, added.line, added.became) == (Verdict.APPROXIMATE, None, "agents.agent")


@pytest.mark.parametrize("text", [TEAM, EVERYTHING], ids=["team", "everything"])
def test_every_leaf_has_one_row_in_the_files_order(text: str, tmp_path: Path) -> None:
    found = imported(text)
    data = load_yaml(text).data
    assert [dotted(path) for path, _ in leaves(data)] == [row.field for row in found.rows[:-1]]
    assert all(row.line and row.file == "config.yaml" for row in found.rows[:-1])
    assert loaded(found, tmp_path).models


@pytest.mark.parametrize("text", [TEAM, EVERYTHING], ids=["team", "everything"])
def test_no_secret_is_copied_anywhere(text: str) -> None:
    found = imported(text)
    shown = found.text + repr(found.rows)
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("text", [TEAM, EVERYTHING], ids=["team", "everything"])
def test_what_is_left_out_is_named_in_a_comment(text: str) -> None:
    found = imported(text)
    comments = " ".join(line.strip(" #") for line in found.text.splitlines() if line.strip().startswith("#"))
    left = [row for row in found.rows if row.verdict is Verdict.UNSUPPORTED and "\n" not in row.field]
    assert left
    assert [row.field for row in left if f"{row.field} (line {row.line})" not in comments] == []
    counts = found.counts
    assert (
        f"Fields: {counts.exact} exact, {counts.approximate} approximate, {counts.unsupported} unsupported."
        in comments
    )
    assert counts.exact + counts.approximate + counts.unsupported == len(found.rows)


@pytest.mark.parametrize("path", list(_examples()), ids=lambda path: path.stem)
def test_the_configs_that_come_with_litellm(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    found = imported(text)
    assert [dotted(at) for at, _ in leaves(load_yaml(text).data)] == [row.field for row in found.rows[:-1]]
    assert loaded(found, tmp_path).agents


def test_everything(tmp_path: Path) -> None:
    found = imported(EVERYTHING)
    config = loaded(found, tmp_path)
    fast = config.models["fast"]
    assert fast.strategy is StrategyName.ORDERED
    assert [(t.id, t.provider, t.model) for t in fast.targets] == [
        ("fast/groq-1", "groq", "mini"),
        ("fast-one", "openai", "gpt-4o-mini"),
    ]
    assert fast.targets[0].base_url == "https://api.groq.com/openai/v1"
    assert (fast.targets[0].concurrency, fast.targets[1].concurrency, fast.targets[1].tpm) == (50, 8, 100_000)
    assert fast.retries == 4
    assert (fast.timeouts.first_event_s, fast.timeouts.idle_s, fast.timeouts.total_s) == (900, 0.5, 900)
    assert (fast.breaker.failures, fast.breaker.cool_down_s) == (1000, 20)
    assert fast.fallbacks == ("claude-haiku-4-5", "no such")
    assert config.models["cloud"].retries == 10
    assert config.models["cloud"].strategy is StrategyName.LEAST_LATENCY
    assert config.models["cloud"].affinity is Affinity.RUN
    assert config.models["cloud"].timeouts.first_event_s == 100
    assert config.models["codex"].targets[0].model == "gpt-5-codex"
    assert config.models["codex"].targets[0].dialects == ("openai_responses",)
    assert config.models["mini"].targets[1].model == "gpt-4o-mini"
    assert config.models["mini"].fallbacks == fast.fallbacks
    assert config.models["free/gpt-4o"].targets[0].model == "gpt-4o"
    assert config.models["*"].targets[0].model == "*"
    assert {"mocked", "paused", "unsafe", "query", "nowhere", "lost", "named-by-env"}.isdisjoint(
        config.models
    )
    assert all(model.on_leave is OnLeave.DRAIN for model in config.models.values())
    assert config.prices["openai/gpt-4o-mini"].max_input_tokens == 1000
    assert config.translation == "strict"
    assert config.server.max_body_mb == 3
    assert config.telemetry.otlp_endpoint is not None
    (budget,) = config.budgets
    assert (budget.window, budget.usd, budget.timezone) == ("day", 10, "Europe/Berlin")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("model_list[0].litellm_params.order", "exact"),
        ("model_list[0].litellm_params.weight", "exact"),
        ("model_list[0].litellm_params.tpm", "exact"),
        ("model_list[0].litellm_params.max_retries", "approximate"),
        ("model_list[0].litellm_params.temperature", "unsupported"),
        ("model_list[0].litellm_params.input_cost_per_token", "exact"),
        ("model_list[0].litellm_params.input_cost_per_token_batches", "exact"),
        ("model_list[0].litellm_params.drop_params", "approximate"),
        ("model_list[0].model_info.id", "approximate"),
        ("model_list[0].model_info.mode", "exact"),
        ("model_list[0].model_info.access_groups[0]", "unsupported"),
        ("model_list[1].litellm_params.rpm", "unsupported"),
        ("model_list[1].litellm_params.custom_llm_provider", "exact"),
        ("model_list[2].model_info.input_cost_per_token", "unsupported"),
        ("model_list[3].model_name", "exact"),
        ("model_list[4].litellm_params.aws_region_name", "approximate"),
        ("model_list[4].litellm_params.aws_role_name", "unsupported"),
        ("model_list[5].litellm_params.aws_region_name", "unsupported"),
        ("model_list[6].litellm_params.model", "approximate"),
        ("model_list[10].litellm_params.api_base", "unsupported"),
        ("model_list[14].litellm_params", "unsupported"),
        ("model_list[15]", "unsupported"),
        ("credential_list[0].credential_values.api_key", "approximate"),
        ("credential_list[0].credential_values.api_base", "exact"),
        ("credential_list[0].credential_info.description", "exact"),
        ("router_settings.optional_pre_call_checks[0]", "approximate"),
        ("router_settings.optional_pre_call_checks[1]", "exact"),
        ("router_settings.optional_pre_call_checks[2]", "unsupported"),
        ("router_settings.timeout", "approximate"),
        ("router_settings.disable_cooldowns", "approximate"),
        ("router_settings.fallbacks[0].fast[1]", "unsupported"),
        ("router_settings.fallbacks[1].fast[0]", "exact"),
        ("router_settings.fallbacks[3].gone[0]", "exact"),
        ("router_settings.content_policy_fallbacks[0].fast[0].model", "unsupported"),
        ("router_settings.model_group_alias.mini", "approximate"),
        ("router_settings.model_group_alias.fast", "unsupported"),
        ("router_settings.model_group_alias.broken", "approximate"),
        ("router_settings.model_group_alias.hidden.hidden", "unsupported"),
        ("litellm_settings.num_retries", "exact"),
        ("litellm_settings.callbacks[0]", "approximate"),
        ("litellm_settings.callbacks[1]", "approximate"),
        ("litellm_settings.failure_callback", "unsupported"),
        ("litellm_settings.default_fallbacks", "exact"),
        ("litellm_settings.max_budget", "approximate"),
        ("general_settings.cancel_on_disconnect", "exact"),
        ("general_settings.nested.deep[1].x", "exact"),
        ("environment_variables.REDIS_PASSWORD", "approximate"),
        ("include[0]", "unsupported"),
        ("unheard_of", "unsupported"),
    ],
)
def test_the_verdicts_on_everything(field: str, said: str) -> None:
    assert verdict(imported(EVERYTHING), field)[0] == said


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ("simple-shuffle", StrategyName.WEIGHTED, "exact"),
        ("least-busy", StrategyName.LEAST_BUSY, "exact"),
        ("cost-based-routing", StrategyName.LOWEST_COST, "exact"),
        ("latency-based-routing", StrategyName.LEAST_LATENCY, "approximate"),
        ("usage-based-routing-v2", StrategyName.LEAST_BUSY, "approximate"),
        ("lar1", StrategyName.WEIGHTED, "unsupported"),
    ],
)
def test_strategies(theirs: str, ours: StrategyName, said: str, tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        "- {model_name: m, litellm_params: {model: openai/a}}\n"
        "- {model_name: m, litellm_params: {model: openai/b}}\n"
        f"router_settings: {{routing_strategy: {theirs}}}\n"
    )
    found = imported(text)
    assert verdict(found, "router_settings.routing_strategy")[0] == said
    assert loaded(found, tmp_path).models["m"].strategy is ours


@pytest.mark.parametrize(
    ("first", "second", "shares"),
    [
        ("weight: 2", "weight: 0.5", (2, 0.5)),
        ("weight: 2", "rpm: 5", (2, 0.001)),
        ("rpm: 900", "rpm: 600", (1.5, 1)),
        ("tpm: 40000, rpm: 10", "tpm: 10000, rpm: 10", (1, 1)),
        ("tpm: 40000", "tpm: 10000", (4, 1)),
        ("temperature: 0", "temperature: 1", (1, 1)),
    ],
)
def test_shares_are_those_of_the_simple_shuffle(
    first: str, second: str, shares: tuple[float, float], tmp_path: Path
) -> None:
    text = (
        f"model_list:\n- {{model_name: m, litellm_params: {{model: openai/a, {first}}}}}\n"
        f"- {{model_name: m, litellm_params: {{model: openai/b, {second}}}}}\n"
    )
    targets = loaded(imported(text), tmp_path).models["m"].targets
    assert tuple(target.weight for target in targets) == shares


@pytest.mark.parametrize(
    ("params", "provider", "model"),
    [
        ("model: gpt-4o", "openai", "gpt-4o"),
        ("model: claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("model: claude-of-tomorrow", "anthropic", "claude-of-tomorrow"),
        ("model: openrouter/anthropic/claude-3.5-sonnet", "openrouter", "anthropic/claude-3.5-sonnet"),
        ("model: vertex_ai/gemini-2.5-pro", "vertex_ai", "gemini-2.5-pro"),
        ("model: azure/my-deployment, api_base: 'https://x.openai.azure.com'", "azure", "my-deployment"),
        ("model: openai/meta/llama, api_base: 'http://127.0.0.1:8000/v1'", "openai", "meta/llama"),
        ("model: mistral-large, custom_llm_provider: mistral", "mistral", "mistral-large"),
        ("model: mistral/mistral-large, custom_llm_provider: mistral", "mistral", "mistral-large"),
    ],
)
def test_provider_and_model(params: str, provider: str, model: str, tmp_path: Path) -> None:
    (target,) = loaded(imported(one(params)), tmp_path).models["m"].targets
    assert (target.provider, target.model) == (provider, model)


def test_a_wildcard_that_passes_the_name_on_is_one_model(tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        "- {model_name: '*', litellm_params: {model: 'openai/*'}}\n"
        "- {model_name: 'claude-*', litellm_params: {model: 'anthropic/claude-*'}}\n"
        "- {model_name: 'openai/*', litellm_params: {model: 'openrouter/openai/*'}}\n"
    )
    found = imported(text)
    models = loaded(found, tmp_path).models
    assert {name: (m.targets[0].provider, m.targets[0].model) for name, m in models.items()} == {
        "claude-*": ("anthropic", "*"),
        "openai/*": ("openrouter", "*"),
        "*": ("openai", "*"),
    }
    assert found.counts.unsupported == 0


def test_a_wildcard_with_a_prefix_is_written_out(tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        "- {model_name: 'anthropic/*', litellm_params: {model: 'anthropic/*', api_key: os.environ/KEY}}\n"
        "- {model_name: anthropic/claude-opus-5, litellm_params: {model: anthropic/special}}\n"
        "router_settings: {fallbacks: [{anthropic/claude-next: [anthropic/claude-haiku-4-5]}]}\n"
    )
    found = imported(text)
    models = loaded(found, tmp_path).models
    assert models["anthropic/claude-haiku-4-5"].targets[0].model == "claude-haiku-4-5"
    assert models["anthropic/claude-next"].targets[0].model == "claude-next"
    assert models["anthropic/claude-next"].fallbacks == ("anthropic/claude-haiku-4-5",)
    assert models["anthropic/claude-opus-5"].targets[0].model == "special"
    assert "anthropic/*" not in models
    assert verdict(found, "model_list[0].model_name") == ("approximate", "models.anthropic/*")


def test_a_wildcard_that_leads_nowhere_known_is_left_out(tmp_path: Path) -> None:
    found = imported("model_list: [{model_name: 'x/*', litellm_params: {model: 'openai_like/*'}}]")
    assert not loaded(found, tmp_path).models
    assert verdict(found, "model_list[0].model_name") == ("unsupported", "")


def test_dollars_and_odd_names_come_through(tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        '- {model_name: "a ${X} $$ \\u00e9\\u2028: #1", litellm_params: {model: "openai/${Y} $1"}}\n'
        '- {model_name: "yes", litellm_params: {model: openai/x}, model_info: {id: "<<"}}\n'
        'router_settings: {fallbacks: [{"yes": ["a ${X} $$ \\u00e9\\u2028: #1"]}]}\n'
    )
    models = loaded(imported(text), tmp_path).models
    assert list(models) == ["a ${X} $$ é\u2028: #1", "yes"]
    assert models["a ${X} $$ é\u2028: #1"].targets[0].model == "${Y} $1"
    assert models["yes"].fallbacks == ("a ${X} $$ é\u2028: #1",)


def test_the_same_secret_has_one_placeholder() -> None:
    text = (
        "model_list:\n"
        "- {model_name: a, litellm_params: {model: openai/a, api_key: sk-one}}\n"
        "- {model_name: b, litellm_params: {model: openai/b, api_key: sk-one}}\n"
        "- {model_name: c, litellm_params: {model: openai/c, api_key: os.environ/not-a-variable}}\n"
    )
    found = imported(text)
    became = [row(found, f"model_list[{n}].litellm_params.api_key").became for n in range(3)]
    assert became == [
        "models.a.targets[0].api_key = ${LLM_PROXY_IMPORTED_KEY_1}",
        "models.b.targets[0].api_key = ${LLM_PROXY_IMPORTED_KEY_1}",
        "models.c.targets[0].api_key = ${LLM_PROXY_IMPORTED_KEY_2}",
    ]


def test_a_key_is_not_sent_to_another_server_than_it_was_for() -> None:
    """Without its address, a target of provider openai would send the key to OpenAI."""
    found = imported(one("model: openai/x, api_key: os.environ/K, api_base: not an address"))
    assert "targets" not in found.text
    assert verdict(found, "model_list[0].litellm_params.api_key")[0] == "unsupported"


def test_a_base_model_gives_its_price(tmp_path: Path) -> None:
    info = "  model_info: {base_model: azure/gpt-4o, max_output_tokens: 99}"
    found = imported(one("model: azure/d, api_base: 'https://x.openai.azure.com'", info))
    known = catalogue().price_of(["azure/gpt-4o"])
    assert known is not None
    price = loaded(found, tmp_path).prices["azure/d"]
    assert price.model_dump(exclude_none=True) == {**known, "max_output_tokens": 99}
    assert verdict(found, "model_list[0].model_info.base_model") == ("approximate", "prices.azure/d")


def test_prices_of_the_same_model_that_differ(tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        "- {model_name: a, litellm_params: {model: openai/x, input_cost_per_token: 1.0e-6}}\n"
        "- {model_name: b, litellm_params: {model: openai/x, input_cost_per_token: 2.0e-6}}\n"
    )
    found = imported(text)
    assert loaded(found, tmp_path).prices["openai/x"].input_cost_per_token == 1e-6
    assert verdict(found, "model_list[0].litellm_params.input_cost_per_token")[0] == "exact"
    assert verdict(found, "model_list[1].litellm_params.input_cost_per_token")[0] == "unsupported"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "- a\n- b\n",
            "config.yaml:1:1: is no config of LiteLLM's proxy: name the file that holds model_list",
        ),
        (
            "models: {}\n",
            "config.yaml:1:1: is no config of LiteLLM's proxy: name the file that holds model_list",
        ),
        (
            "x: 1\nmodel_list: {a: b}\n",
            "config.yaml:2:1: model_list: must be a list: correct it and import again",
        ),
        (
            "model_list: []\nrouter_settings: fast\n",
            "config.yaml:2:1: router_settings: must be a mapping: correct it and import again",
        ),
    ],
)
def test_what_is_no_config_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentErrors) as refused:
        imported(text)
    assert str(refused.value) == said
