"""Whatever a LiteLLM config's fields hold: the import says one thing of each, and its file loads."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.importing.catalogue import Catalogue, read_catalogue
from llm_proxy.importing.source import leaves
from llm_proxy.yamlpos import dotted
from tests.unit.litellm_import import imported, loaded

NAMES = ("gpt-4o", "claude", "*", "openai/*", "free/*", "a b", "$x ${Y}", "yes", "é\u2028", "x" * 300, " ")
MODELS = (
    *(
        "openai/gpt-4o",
        "gpt-4o",
        "anthropic/*",
        "openai/*",
        "*",
        "azure/d",
        "bedrock/converse/x",
        "groq/a*b*",
    ),
    *("openai/responses/gpt-5", "unknownco/x", "openai/", "os.environ/M", "openai/$1 ${Z}", "mystery"),
)
TEXTS = (
    *(
        "os.environ/KEY",
        "os.environ/no-variable",
        "sk-1",
        "sk-2",
        "",
        "a: b",
        "[",
        "\n",
        "\t#",
        "é",
        "30d",
        "1mo",
    ),
    *(
        "12h",
        "none",
        "https://h.example/v1",
        "http://u:p@h",
        "https://h?x=1",
        "chat",
        "everyday",
        "groq",
        "$",
    ),
)
characters = st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF)
"""JSON writes those beyond as two escapes, which YAML doesn't put together."""
texts = st.sampled_from(TEXTS) | st.text(characters, max_size=8)
numbers = (
    st.sampled_from([0, 1, 3, 0.5, -1, 1e-7, 1e9, 1e15, 600, 2.5])
    | st.integers(-5, 10**7)
    | st.floats(-1, 1e6, allow_nan=False)
)
scalars = texts | numbers | st.booleans() | st.none()
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
names = st.sampled_from(NAMES)


def _mapping(known: dict[str, st.SearchStrategy[object]]) -> st.SearchStrategy[dict[str, object]]:
    """Some of the known keys, each with what belongs there or with anything."""
    return st.fixed_dictionaries({}, optional={key: value | junk for key, value in known.items()})


def _keyed(keys: str, value: st.SearchStrategy[object]) -> dict[str, st.SearchStrategy[object]]:
    return dict.fromkeys(keys.split(), value)


PARAMS = _mapping(
    {
        **_keyed("rpm tpm max_parallel_requests weight order timeout stream_timeout max_retries", numbers),
        **_keyed("num_retries cooldown_time input_cost_per_token output_cost_per_token", numbers),
        **_keyed("api_key api_base base_url api_version organization aws_region_name vertex_project", texts),
        **_keyed("custom_llm_provider litellm_credential_name region_name mock_response", texts),
        **_keyed("extra_headers tags drop_params temperature", junk),
    }
)
INFO = _mapping(
    {
        **_keyed("id mode base_model", texts),
        **_keyed("max_input_tokens max_tokens allowed_fails input_cost_per_token", numbers),
        **_keyed("supports_vision blocked", st.booleans()),
        "access_groups": st.lists(texts, max_size=2),
    }
)


@functools.cache
def _catalogue() -> Catalogue:
    """A small one, so that wildcards lead to a few models."""
    priced = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_tokens": "many"}
    rows = {
        "gpt-4o": {"litellm_provider": "openai", "mode": "chat", **priced},
        "o9": {"litellm_provider": "openai", "mode": "responses"},
        "anthropic/claude": {
            "litellm_provider": "anthropic",
            "mode": "chat",
            "max_input_tokens": 9,
            **priced,
        },
        "another form": {"litellm_provider": 7},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prices.json"
        path.write_text(json.dumps(rows))
        return read_catalogue(path)


@st.composite
def _deployment(draw: st.DrawFn) -> dict[str, object]:
    params = draw(PARAMS)
    if draw(st.integers(0, 3)):
        params.pop("mock_response", None)
        params.pop("custom_llm_provider", None)
    return {
        "model_name": draw(names),
        "litellm_params": {"model": draw(st.sampled_from(MODELS)), **params},
        "model_info": draw(INFO),
    }


chains = st.lists(st.dictionaries(names, st.lists(names, max_size=3) | names, max_size=2), max_size=3)
ROUTER = {
    **_keyed("num_retries timeout stream_timeout allowed_fails cooldown_time retry_after", numbers),
    **_keyed("fallbacks context_window_fallbacks content_policy_fallbacks", chains),
    "request_timeout": numbers,
    "default_fallbacks": st.lists(names, max_size=2),
    "routing_strategy": st.sampled_from(["simple-shuffle", "least-busy", "latency-based-routing", "lar1"]),
    "model_group_alias": st.dictionaries(names, names, max_size=3),
    "optional_pre_call_checks": st.just(["session_affinity", "enforce_model_rate_limits"]),
    "disable_cooldowns": st.booleans(),
    "default_max_parallel_requests": numbers,
}
LITELLM = _mapping(
    {
        **ROUTER,
        **_keyed("max_budget", numbers),
        **_keyed("budget_duration timezone", texts),
        **_keyed("callbacks success_callback", st.just(["otel", "langfuse"])),
        "drop_params": st.booleans(),
    }
)
GENERAL = _mapping(
    {
        **_keyed("master_key database_url", texts),
        "max_request_size_mb": numbers,
        "cancel_on_disconnect": st.booleans(),
    }
)
CREDENTIAL = st.fixed_dictionaries(
    {"credential_name": st.just("groq"), "credential_values": _mapping(_keyed("api_key api_base", texts))}
)
CONFIG = st.fixed_dictionaries(
    {"model_list": st.lists(_deployment() | junk, max_size=5)},
    optional={
        "router_settings": _mapping(ROUTER),
        "litellm_settings": LITELLM,
        "general_settings": GENERAL,
        "credential_list": st.lists(CREDENTIAL, max_size=1),
        "environment_variables": st.dictionaries(texts, texts, max_size=2),
        "anything": junk,
    },
)
KEY = _mapping(
    {
        **_keyed("max_budget spend tpm_limit rpm_limit tpd_limit max_parallel_requests", numbers),
        **_keyed("key_alias budget_duration user_id team_id expires", texts),
        "token": st.sampled_from(["ab" * 32, "CD" * 32, "sk-plain"]),
        "models": st.lists(names | texts, max_size=3),
        "blocked": st.booleans(),
        "metadata": junk,
        "budget_limits": st.lists(_mapping({"max_budget": numbers, "budget_duration": texts}), max_size=2),
        "litellm_budget_table": _mapping({"max_budget": numbers, "rpm_limit": numbers}),
    }
)


@given(CONFIG, st.none() | st.lists(KEY, max_size=3))
def test_an_import_speaks_of_every_field_once_and_loads(
    config: dict[str, object], keys: list[dict[str, object]] | None
) -> None:
    text = json.dumps(config)
    found = imported(text, None if keys is None else json.dumps(keys), _catalogue())
    fields = [row.field for row in found.rows if row.file == "config.yaml" and row.field != "--keys"]
    assert fields == [dotted(path) for path, _ in leaves(json.loads(text))]
    of_keys = [row.field for row in found.rows if row.file == "keys.json"]
    assert of_keys == (
        [] if keys is None else [dotted(path) for path, _ in leaves({"keys": json.loads(json.dumps(keys))})]
    )
    with tempfile.TemporaryDirectory() as folder:
        assert loaded(found, Path(folder)).agents or keys == []
