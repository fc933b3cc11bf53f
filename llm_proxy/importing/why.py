"""What to tell of fields that nothing is made of: by where they stand, the longest path first."""

from __future__ import annotations

from llm_proxy.yamlpos import KeyPath

UNKNOWN = "is not known to this importer"
_SHARED = "state is shared through the store: set store to a postgresql:// address"
_NO_CACHE = "there is no cache of replies"
_LOGS = "logs are JSON lines on standard error"
_BY_KIND = "how often a failure is tried again follows from its kind"
_POLICY = "what agents may do is in the policy file: see docs/policy.md"
_OWN_STORE = "records are kept in a store of this proxy's own, never in LiteLLM's database: set store"
_CALLERS = "agents send it with their requests"
_OF_PROVIDER = "a target has no such key: litellm takes it from the environment, if at all"
_ISSUED = "keys are issued for agents that the config limits"
_AT_ONCE = "is of targets here: models.*.targets[].concurrency"
_EXTRA = "a target has no headers or parameters of its own"
_BUDGETS = "write it under budgets, by agent or team"

_WHY: dict[tuple[str, ...], str] = {
    ("model_list",): UNKNOWN,
    ("model_list", "litellm_params"): f"{_EXTRA}: {_CALLERS}",
    ("model_list", "litellm_params", "organization"): _EXTRA,
    ("model_list", "litellm_params", "extra_headers"): _EXTRA,
    ("model_list", "litellm_params", "region_name"): "targets are not chosen by region",
    ("model_list", "litellm_params", "tags"): "targets are not chosen by tag: make a model for each tag",
    ("model_list", "litellm_params", "tag_regex"): "targets are not chosen by tag: make a model for each tag",
    ("model_list", "litellm_params", "max_budget"): "budgets are of agents and teams, not of targets",
    ("model_list", "litellm_params", "budget_duration"): "budgets are of agents and teams, not of targets",
    ("model_list", "litellm_params", "max_file_size_mb"): "server.max_body_mb is for all requests",
    ("model_list", "model_info"): "says what a model is; nothing here goes by it",
    ("model_list", "model_info", "access_groups"): "agents list their models: give --keys to have it done",
    ("model_list", "model_info", "team_id"): "who may call a model is said at the agents",
    ("credential_list",): "no target is written from it",
    ("router_settings",): "LiteLLM's router has it, the one here does not",
    ("router_settings", "retry_after"): "waits between tries grow by themselves, and Retry-After is kept to",
    ("router_settings", "retry_policy"): _BY_KIND,
    ("router_settings", "model_group_retry_policy"): _BY_KIND,
    ("router_settings", "allowed_fails_policy"): "every failure that is the target's counts alike",
    ("router_settings", "enable_pre_call_checks"): "prompts are counted where a model has context_fallbacks",
    ("router_settings", "max_fallbacks"): "every fallback is tried once, within timeouts.total_s",
    ("router_settings", "enable_tag_filtering"): "targets are not chosen by tag: make a model for each tag",
    ("router_settings", "routing_strategy_args"): "strategies have no parameters",
    ("router_settings", "provider_budget_config"): "budgets are of agents and teams, not of providers",
    ("router_settings", "redis_url"): _SHARED,
    ("router_settings", "redis_host"): _SHARED,
    ("router_settings", "redis_port"): _SHARED,
    ("router_settings", "redis_password"): _SHARED,
    ("router_settings", "redis_db"): _SHARED,
    ("router_settings", "cache_responses"): _NO_CACHE,
    ("router_settings", "cache_kwargs"): _NO_CACHE,
    ("router_settings", "caching_groups"): _NO_CACHE,
    ("router_settings", "default_litellm_params"): f"{_EXTRA}: {_CALLERS}",
    ("router_settings", "set_verbose"): _LOGS,
    ("router_settings", "debug_level"): _LOGS,
    ("litellm_settings",): "is a setting of LiteLLM itself",
    ("litellm_settings", "cache"): _NO_CACHE,
    ("litellm_settings", "cache_params"): _NO_CACHE,
    ("litellm_settings", "set_verbose"): _LOGS,
    ("litellm_settings", "json_logs"): _LOGS,
    ("litellm_settings", "guardrails"): _POLICY,
    ("litellm_settings", "turn_off_message_logging"): "this version records content in full",
    ("litellm_settings", "redact_messages_in_exceptions"): "errors and logs never hold content",
    ("litellm_settings", "default_team_settings"): _BUDGETS,
    ("litellm_settings", "default_internal_user_params"): _BUDGETS,
    ("litellm_settings", "max_internal_user_budget"): _BUDGETS,
    ("litellm_settings", "internal_user_budget_duration"): _BUDGETS,
    ("litellm_settings", "max_end_user_budget"): _BUDGETS,
    (
        "litellm_settings",
        "upperbound_key_generate_params",
    ): _ISSUED,
    ("litellm_settings", "default_key_generate_params"): _ISSUED,
    ("litellm_settings", "budget_reset_time"): "windows begin at midnight of budgets[].timezone",
    ("general_settings",): "is a setting of LiteLLM's server",
    ("general_settings", "database_url"): _OWN_STORE,
    ("general_settings", "store_model_in_db"): "models that only LiteLLM's database has are not in this file",
    ("general_settings", "alerting"): "no alerts are sent: watch /metrics, or the spans",
    ("general_settings", "alerting_threshold"): "no alerts are sent: watch /metrics, or the spans",
    ("general_settings", "alert_types"): "no alerts are sent: watch /metrics, or the spans",
    ("general_settings", "max_parallel_requests"): _AT_ONCE,
    (
        "general_settings",
        "global_max_parallel_requests",
    ): _AT_ONCE,
    ("general_settings", "completion_model"): "a call names its model",
    ("general_settings", "custom_auth"): "callers are agents with keys",
    ("general_settings", "enable_jwt_auth"): "callers are agents with keys",
    ("general_settings", "litellm_jwtauth"): "callers are agents with keys",
    ("general_settings", "allowed_routes"): "an agent may call whatever its models serve",
    ("general_settings", "pass_through_endpoints"): "paths under /v1/ pass through to default_model's target",
    ("general_settings", "background_health_checks"): "a target's health is seen from its calls",
    ("general_settings", "health_check_interval"): "a target's health is seen from its calls",
    ("general_settings", "coordination_redis"): _SHARED,
    ("include",): "included files are not read: merge them into this one and import it again",
    ("guardrails",): _POLICY,
    ("files_settings",): "such paths pass through to default_model's target",
    ("finetune_settings",): "such paths pass through to default_model's target",
    ("mcp_servers",): "tools are called by agents themselves; the policy judges the calls",
    ("mcp_tools",): "tools are called by agents themselves; the policy judges the calls",
    ("callback_settings",): "spans go by OTLP: set telemetry.otlp_endpoint",
    ("keys",): "has no counterpart for an agent",
    ("keys", "key_name"): "a key goes by the start of its hash",
    ("keys", "metadata"): "an agent has an owner, a team and a role, and no notes",
    ("keys", "spend"): "budgets begin at zero in the present window",
    ("keys", "total_spend"): "what was spent before is not in the records here",
    ("keys", "max_parallel_requests"): _AT_ONCE,
    ("keys", "model_max_budget"): "a budget counts all models of an agent",
    ("keys", "soft_budget"): "budgets[].warn_at is a share of a budget, for that",
    ("keys", "guardrails"): _POLICY,
}
_PROVIDERS = ("aws_", "s3_", "vertex_", "azure_", "gcs_", "gcp_", "watsonx_", "bedrock_")
_CAPABILITIES = "what a model can do is left to its provider: requests go as they are asked"


def why(path: KeyPath) -> str:
    """The reason for the field at `path`; those of a keys file stand under `keys`."""
    plain = tuple(part for part in path if isinstance(part, str))
    section, key = ("", "", *plain)[-2:]
    if section == "model_info" and key.startswith("supports_"):
        return _CAPABILITIES
    if section == "litellm_params" and key.startswith(_PROVIDERS):
        return _OF_PROVIDER
    for end in range(len(plain), 0, -1):
        if plain[:end] in _WHY:
            return _WHY[plain[:end]]
    return UNKNOWN
