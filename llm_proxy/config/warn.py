"""What is allowed in a config and yet probably not meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from llm_proxy.config.check import Entries, credentials, nearest
from llm_proxy.config.choices import Unpriced
from llm_proxy.config.credentials import SHORT_CHARS
from llm_proxy.config.names import meets
from llm_proxy.config.schema import ConfigFile, ModelConfig, PriceConfig
from llm_proxy.yamlpos import Document, Issue

HasPrice = Callable[[str, str], bool]
"""Whether a price is known for (provider, model), the config's own `prices` apart."""

_DEAREST_PER_TOKEN = 0.01
"""USD. No model costs as much; who writes it meant a price per million tokens."""


def warnings(config: ConfigFile, document: Document, has_price: HasPrice | None = None) -> Iterator[Issue]:
    """All warnings of a valid config, in no order. Without `has_price` nothing is said of missing prices."""
    if not config.models:
        yield document.issue(("models",), "no model is defined: every call will be answered model_not_found")
    if config.policy is None:
        yield document.issue(
            ("policy",), "no policy: tool calls are recorded and none is judged; name a policy file"
        )
    yield from _without_effect(config, document)
    yield from _agents(config, document)
    yield from _budgets(config, document)
    yield from _cycles(config.models, document)
    yield from _short_keys(config, document)
    yield from _dear_prices(config.prices, document)
    if has_price and config.unpriced is Unpriced.REFUSE:
        yield from _unpriced(config, document, has_price)


def _without_effect(config: ConfigFile, document: Document) -> Iterator[Issue]:
    """Keys that are read and checked, and that nothing acts on yet: who sets one must know."""
    message = "is checked and has no effect in this version"
    records = config.records.model_fields_set & {"retention_days", "signing_key"}
    keys: list[tuple[str | int, ...]] = [("records", key) for key in sorted(records)]
    keys += [
        ("budgets", n, "warn_at") for n, b in enumerate(config.budgets) if "warn_at" in b.model_fields_set
    ]
    for key in keys:
        yield document.issue(key, message)


def _agents(config: ConfigFile, document: Document) -> Iterator[Issue]:
    for name, agent in config.agents.items():
        if not agent.models:
            yield document.issue(("agents", name), "may call no model: list some under models")
        for n, entry in enumerate(agent.models):
            if not meets(entry, config.models):
                message = f"{entry!r} matches no model: {nearest(entry, config.models)}"
                yield document.issue(("agents", name, "models", n), message)


def _budgets(config: ConfigFile, document: Document) -> Iterator[Issue]:
    teams = sorted({agent.team for agent in config.agents.values() if agent.team})
    for n, budget in enumerate(config.budgets):
        if budget.agent is not None and not meets(budget.agent, config.agents):
            message = f"no agent here is named {budget.agent!r}: {nearest(budget.agent, config.agents)}"
            yield document.issue(("budgets", n, "agent"), message)
        if budget.team is not None and not meets(budget.team, teams):
            message = f"no agent here is of team {budget.team!r}: {nearest(budget.team, teams)}"
            yield document.issue(("budgets", n, "team"), message)


def _cycles(models: Mapping[str, ModelConfig], document: Document) -> Iterator[Issue]:
    """One warning per ring of fallbacks, at the model of it that stands first in the file."""
    told: set[str] = set()
    for name in models:
        ring = None if name in told else _ring(name, models)
        if ring:
            told.update(ring)
            chain = " → ".join((*ring, name))
            yield document.issue(
                ("models", name, "fallbacks"), f"falls back in a circle ({chain}): each is tried once"
            )


def _ring(start: str, models: Mapping[str, ModelConfig]) -> tuple[str, ...] | None:
    """The shortest way from `start` back to itself, by literal names."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    for way in ways:
        for fallback in models[way[-1]].fallbacks:
            if fallback == start:
                return way
            if fallback in models and fallback not in seen:
                seen.add(fallback)
                ways.append((*way, fallback))
    return None


def _short_keys(config: ConfigFile, document: Document) -> Iterator[Issue]:
    for path, key in credentials(Entries.of(config)):
        if key.short:
            yield document.issue(
                path, f"is shorter than {SHORT_CHARS} characters and can be guessed: use a longer one"
            )


def _dear_prices(prices: Mapping[str, PriceConfig], document: Document) -> Iterator[Issue]:
    for name, price in prices.items():
        for field, value in price.model_dump(exclude_none=True).items():
            if "cost" in field and "token" in field and value > _DEAREST_PER_TOKEN:
                message = f"is {value:g} USD for one token: prices are per token, not per million"
                yield document.issue(("prices", name, field), message)


def _unpriced(config: ConfigFile, document: Document, has_price: HasPrice) -> Iterator[Issue]:
    limits = [budget.id for budget in config.budgets if budget.usd is not None]
    if not limits:
        return
    for name, model in config.models.items():
        for n, target in enumerate(model.targets):
            sent = name if target.model == "*" else target.model
            own = sent in config.prices or f"{target.provider}/{sent}" in config.prices
            if "*" not in sent and not own and not has_price(target.provider, sent):
                yield document.issue(
                    ("models", name, "targets", n),
                    f"no price is known for {sent!r}: calls under the usd limit {limits[0]!r} are refused; "
                    "give it one under prices, or set unpriced: free",
                )
