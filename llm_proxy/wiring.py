"""From the configuration to the domain: routes, endpoints, agents, keys, limits and prices."""

from __future__ import annotations

from yarl import URL

from budgets import Limit, LimitBook, Scope, window_named
from llm_proxy.config import Config
from llm_proxy.config.schema import ModelConfig, TargetConfig
from llm_proxy.identity.caller import Agent
from llm_proxy.identity.keyring import Credential
from llm_proxy.identity.names import NameSet
from llm_proxy.judge import Rules
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import load_policy
from llm_proxy.upstream.prices import PriceBook
from llm_proxy.upstream.provider import Endpoint
from llm_proxy.version import VERSION
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from routing.targets import Route, RouteTable, Target, Timeouts

OPENAI_URL = "https://api.openai.com/v1"


def routes(config: Config) -> RouteTable:
    return RouteTable(_route(name, model) for name, model in config.models.items())


def _route(name: str, model: ModelConfig) -> Route:
    limits = model.timeouts
    return Route(
        name=name,
        targets=tuple(Target(t.id, t.provider, t.model, t.weight) for t in model.targets),
        strategy=model.strategy.value,
        fallbacks=model.fallbacks,
        retries=model.retries,
        timeouts=Timeouts(limits.connect_s, limits.first_event_s, limits.idle_s, limits.total_s),
    )


def endpoints(config: Config) -> dict[str, Endpoint]:
    """Where each target's calls go, by its key."""
    return {target.id: _endpoint(target) for model in config.models.values() for target in model.targets}


def _endpoint(target: TargetConfig) -> Endpoint:
    if target.script is not None:
        return Endpoint(target.id, target.provider, address="in-process", script=str(target.script))
    url = URL(f"{target.base_url or OPENAI_URL}{OPENAI_CHAT.upstream_path}")
    headers = {
        "content-type": "application/json",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"llm-proxy/{VERSION}",
    }
    if target.api_key is not None:
        headers["authorization"] = f"Bearer {target.api_key.get_secret_value()}"
    return Endpoint(target.id, target.provider, str(url), f"{url.host}:{url.port}", headers)


def agents(config: Config) -> dict[str, Agent]:
    return {
        id_: Agent(
            id=id_,
            owner=agent.owner,
            team=agent.team,
            role=agent.role,
            models=NameSet(agent.models),
            tools=agent.tools,
            scopes=agent.scopes,
            require_run=agent.require_run,
        )
        for id_, agent in config.agents.items()
    }


def credentials(config: Config) -> list[Credential]:
    """The keys that the config gives its agents; named by the start of their hash."""
    return [
        Credential(key_id=f"cfg-{key.sha256[:8]}", agent_id=id_, sha256=key.sha256)
        for id_, agent in config.agents.items()
        for key in agent.keys
    ]


def limits(config: Config) -> LimitBook:
    return LimitBook(
        [
            Limit(
                id=budget.id,
                scope=Scope(agent=budget.agent, team=budget.team),
                window=window_named(budget.window, budget.timezone),
                maximum=budget.maximum,
                warn_at=budget.warn_at,
            )
            for budget in config.budgets
        ]
    )


def prices(config: Config) -> PriceBook:
    """Prices of every model that the config names, with its own put over the table's."""
    overrides = {name: price.model_dump(exclude_none=True) for name, price in config.prices.items()}
    book = PriceBook(overrides)
    book.load((t.provider, t.model) for model in config.models.values() for t in model.targets)
    return book


def rules(config: Config) -> Rules | None:
    """The policy in force, compiled. Raises `PolicyErrors`."""
    if config.policy is None:
        return None
    groups = {group for operator in config.operators for group in operator.groups}
    policy = load_policy(config.policy, groups)
    return Rules(PolicyEngine(policy), policy.sha256, policy.file.policy.mode, policy.file.on_deny)
