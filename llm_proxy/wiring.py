"""From the configuration to the domain: routes, endpoints, agents, keys, limits and prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from sqlalchemy import Engine, make_url
from yarl import URL

from budgets import AT_ONCE, Limit, LimitBook, OnExceed, Scope, Unit, window_named
from llm_proxy.config import Config
from llm_proxy.config.approvers import who_may_approve
from llm_proxy.config.budgeting import BudgetConfig, DowngradeConfig
from llm_proxy.config.choices import Affinity, Content, Event, Hold, OnCut, OnLeave
from llm_proxy.config.issuers import IssuerConfig
from llm_proxy.config.providers import LITELLM
from llm_proxy.config.schema import ModelConfig, TargetConfig
from llm_proxy.config.values import webhook_key
from llm_proxy.counting.tokenizers import tokenizer_of
from llm_proxy.identity.caller import Agent
from llm_proxy.identity.claims import AgentNames, Issuer
from llm_proxy.identity.keyfetch import AddressSource, FileSource, Source
from llm_proxy.identity.keyring import Credential
from llm_proxy.identity.names import NameSet
from llm_proxy.judge import Rules
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import load_policy
from llm_proxy.pricing.book import PriceBook
from llm_proxy.quote import COUNTED
from llm_proxy.reactions.events import Webhook
from llm_proxy.reactions.links import Links
from llm_proxy.receipts.issue import Receipts
from llm_proxy.retention.keeper import Rules as RetentionRules
from llm_proxy.signing import KeyFileError, SigningKey, load_or_make, open_to_others
from llm_proxy.upstream.provider import Endpoint
from llm_proxy.version import VERSION
from routing.health import BreakerSettings
from routing.targets import NO_LIMITS, Facts, Hedge, Limits, Route, RouteTable, Target, Timeouts

log = structlog.get_logger("llm_proxy")

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
KEY_FILE = "signing-key.pem"
ANTHROPIC_VERSION = "2023-06-01"

_CHAT, _RESPONSES, _MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"
_COMPLETIONS, _EMBEDDINGS, _COUNT = "openai_completions", "openai_embeddings", "anthropic_count_tokens"
_PASSING = "passthrough"
_SPEAKS = {
    "openai": (_CHAT, _RESPONSES, _COMPLETIONS, _EMBEDDINGS, _PASSING),
    "anthropic": (_MESSAGES, _COUNT, _PASSING),
}
_SCRIPTED_SPEAKS = (_CHAT,)
_LITELLM_SPEAKS = (_CHAT, _EMBEDDINGS)
_NOT_EVERYWHERE = frozenset({_RESPONSES})
"""What copies of OpenAI's API often lack: it is tried, and where it isn't there the next dialect is used."""


def routes(config: Config, prices: PriceBook) -> RouteTable:
    def facts(provider: str, model: str) -> Facts:
        price = prices.find(provider, model)
        if price is None:
            return Facts()
        return Facts(price.window, (3 * price.standard.input + price.standard.output) // 4)

    return RouteTable((_route(name, model) for name, model in config.models.items()), facts)


def _route(name: str, model: ModelConfig) -> Route:
    limits = model.timeouts
    hedge = model.hedge_after
    return Route(
        name=name,
        targets=tuple(map(_target, model.targets)),
        strategy=model.strategy.value,
        affinity=model.affinity is Affinity.RUN,
        fallbacks=model.fallbacks,
        context_fallbacks=model.context_fallbacks,
        content_fallbacks=model.content_fallbacks,
        retries=model.retries,
        timeouts=Timeouts(limits.connect_s, limits.first_event_s, limits.idle_s, limits.total_s),
        breaker=BreakerSettings(threshold=model.breaker.failures, cool_down_s=model.breaker.cool_down_s),
        hedge=None if hedge is None else Hedge(None if hedge == "p95" else hedge),
        continues=model.on_cut is OnCut.CONTINUE,
        drains=model.on_leave is OnLeave.DRAIN,
    )


def _target(target: TargetConfig) -> Target:
    limits = (target.rpm, target.tpm, target.concurrency)
    return Target(
        target.id,
        target.provider,
        target.model,
        target.weight,
        api_keys=max(1, len(target.keys)),
        limits=NO_LIMITS if limits == (None, None, None) else Limits(*limits),
    )


def endpoints(config: Config) -> dict[str, Endpoint]:
    """Where each target's calls go, by its key, and with each of its API keys by the lane's."""
    found: dict[str, Endpoint] = {}
    for model in config.models.values():
        for target in model.targets:
            keys = target.keys or ("",)
            found[target.id] = _endpoint(target, keys[0])
            lanes = _target(target).lanes
            found |= {lane: _endpoint(target, key) for lane, key in zip(lanes, keys, strict=True)}
    return found


def _endpoint(target: TargetConfig, key: str) -> Endpoint:
    provider = target.provider
    if target.script is not None:
        return Endpoint(
            target.id, provider, address="in-process", script=str(target.script), dialects=_SCRIPTED_SPEAKS
        )
    if provider in LITELLM:
        url = target.base_url or ""
        address = _address(url) if url else provider
        return Endpoint(target.id, provider, url, address, api_key=key, dialects=_LITELLM_SPEAKS)
    url = _base(target)
    headers = {
        "content-type": "application/json",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"llm-proxy/{VERSION}",
    }
    if provider == "anthropic":
        headers["anthropic-version"] = ANTHROPIC_VERSION
    if key:
        headers |= {"x-api-key": key} if provider == "anthropic" else {"authorization": f"Bearer {key}"}
    dialects = (*(d.value for d in target.dialects), _PASSING) if target.dialects else ()
    if _MESSAGES in dialects:
        dialects = (*dialects, _COUNT)
    maybe: frozenset[str] = frozenset()
    if not dialects:
        dialects = _SPEAKS[provider]
        if provider == "openai" and target.base_url is not None:
            maybe = _NOT_EVERYWHERE
    return Endpoint(target.id, provider, url, _address(url), headers, dialects=dialects, maybe=maybe)


def _base(target: TargetConfig) -> str:
    """The base URL that ends in the API's version."""
    if target.provider == "openai":
        return target.base_url or OPENAI_URL
    url = target.base_url or ANTHROPIC_URL
    return url if url.endswith("/v1") else f"{url}/v1"


def _address(url: str) -> str:
    parsed = URL(url)
    return f"{parsed.host}:{parsed.port}"


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


def issuers(config: Config) -> list[tuple[Issuer, Source]]:
    """Whose tokens are taken, and where their keys are read from."""
    return [(_issuer(issuer), _key_source(issuer)) for issuer in config.identity.issuers]


def _issuer(issuer: IssuerConfig) -> Issuer:
    return Issuer(
        name=issuer.issuer,
        audiences=frozenset(issuer.audience),
        algorithms=frozenset(issuer.algorithms),
        agents=AgentNames(issuer.agents),
        agent=issuer.claims.agent,
        user=issuer.claims.user or "",
        role=issuer.claims.role or "",
        clearance=issuer.claims.clearance or "",
        leeway_s=issuer.leeway_s,
        user_required=issuer.user_required,
    )


def _key_source(issuer: IssuerConfig) -> Source:
    if isinstance(issuer.jwks, Path):
        return FileSource(issuer.jwks)
    return AddressSource(issuer.jwks, issuer.jwks_ca, issuer.jwks_token)


def limits(config: Config) -> LimitBook:
    return LimitBook([limit for budget in config.budgets for limit in _limits(budget)])


def _limits(budget: BudgetConfig) -> list[Limit]:
    """One limit, or two: calls at once are counted over no window but a run's."""
    window = budget.window or AT_ONCE
    at_once = {unit: most for unit, most in budget.maximum.items() if unit is Unit.CONCURRENCY}
    if not at_once or window in (AT_ONCE, "run"):
        return [_limit(budget, window, budget.maximum)]
    rest = {unit: most for unit, most in budget.maximum.items() if unit not in at_once}
    return [_limit(budget, window, rest), _limit(budget, AT_ONCE, at_once)]


def _limit(budget: BudgetConfig, window: str, maximum: Mapping[Unit, int]) -> Limit:
    downgrade = budget.on_exceed if isinstance(budget.on_exceed, DowngradeConfig) else None
    return Limit(
        id=budget.id,
        scope=Scope(budget.agent, budget.team, budget.user, budget.key, budget.model, budget.tag),
        window=window_named(window, budget.timezone),
        maximum=maximum,
        on_exceed=OnExceed.DOWNGRADE if downgrade else OnExceed(str(budget.on_exceed)),
        downgrade=downgrade.downgrade if downgrade else "",
        warn_at=budget.warn_at,
    )


def webhooks(config: Config) -> tuple[Webhook, ...]:
    return tuple(
        Webhook(
            w.id,
            w.url,
            webhook_key(w.secret.get_secret_value()),
            frozenset(w.events or Event),
            content=w.content,
            links_for=w.links_for,
        )
        for w in config.webhooks
    )


def links(config: Config, engine: Engine, now_us: Callable[[], int]) -> Links | None:
    """One-time links to approvals; None where no webhook carries any."""
    public = config.server.public_url
    if public is None or not any(webhook.links_for for webhook in config.webhooks):
        return None
    return Links(engine, public, config.operators, now_us)


def prices(config: Config) -> PriceBook:
    """Prices of every model that the config names, with its own put over the table's."""
    overrides = {name: price.model_dump(exclude_none=True) for name, price in config.prices.items()}
    book = PriceBook(overrides)
    book.load((t.provider, t.model) for model in config.models.values() for t in model.targets)
    return book


def expecting(config: Config) -> frozenset[str]:
    """Models whose streams hold at first no more than is expected of them."""
    return frozenset([name for name, model in config.models.items() if model.hold is Hold.EXPECTED])


def served(config: Config) -> dict[str, tuple[str, str]]:
    """Provider and model of each target, by its id."""
    return {t.id: (t.provider, t.model) for model in config.models.values() for t in model.targets}


def encodings(config: Config) -> frozenset[str]:
    """What the configured models' tokens are counted in; none where no limit counts any."""
    if not any(not COUNTED.isdisjoint(budget.maximum) for budget in config.budgets):
        return frozenset()
    targets = [target for model in config.models.values() for target in model.targets]
    return frozenset([tokenizer_of(target.provider, target.model).encoding for target in targets])


def receipts(config: Config) -> Receipts:
    """What signs receipts. Blocks. Raises `KeyFileError` where the key that is configured can't be had."""
    told = config.receipts
    issuer = told.issuer or config.server.public_url or config.telemetry.service_name
    return Receipts(signing_key(config), issuer, told.valid_s, told.window_s)


def signing_key(config: Config) -> SigningKey | None:
    """The key in the file that the config names, else beside the store's file or the config: made if need be.

    None where nobody asked for one, and none can be made.
    """
    path = key_path(config)
    try:
        key = load_or_make(path)
    except KeyFileError as error:
        if config.records.signing_key is not None:
            raise
        log.warning("there is no signing key, and so no receipt and no checkpoint", reason=str(error))
        return None
    if open_to_others(path):
        log.warning("the signing key can be read by others: chmod 600 it", file=str(path))
    return key


def key_path(config: Config) -> Path:
    """Where the signing key is, or would be made."""
    if config.records.signing_key is not None:
        return config.records.signing_key
    store = make_url(config.store.get_secret_value())
    file = store.get_backend_name() == "sqlite" and store.database
    return (Path(file).parent if file else config.path.parent) / KEY_FILE


def retention(config: Config) -> RetentionRules:
    """How long content is kept, and what of it."""
    told = config.records
    return RetentionRules(
        told.retention_days, told.export_before_delete, keeps_all=told.content is Content.FULL
    )


def rules(config: Config) -> Rules | None:
    """The policy in force, compiled. Raises `PolicyErrors`."""
    if config.policy is None:
        return None
    groups = {group for operator in config.operators for group in operator.groups}
    policy = load_policy(config.policy, groups)
    file = policy.file
    answerable = frozenset(
        [name for name, entry in file.approvals.items() if who_may_approve(config.operators, entry.approvers)]
    )
    return Rules(PolicyEngine(policy), policy.sha256, file.policy.mode, file.on_deny, answerable)
