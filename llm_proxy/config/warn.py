"""What is allowed in a config and yet probably not meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm_proxy.config.check import Entries, credentials
from llm_proxy.config.choices import Unpriced
from llm_proxy.config.credentials import SHORT_CHARS
from llm_proxy.config.listed import PriceOf, Prices, sent
from llm_proxy.config.names import meets, nearest
from llm_proxy.config.schema import ConfigFile, PriceConfig
from llm_proxy.config.warn_budgets import budget_warnings
from llm_proxy.config.warn_routing import routing_warnings
from llm_proxy.yamlpos import Document, Issue

_DEAREST_PER_TOKEN = 0.01
"""USD. No model costs as much; who writes it meant a price per million tokens."""


def warnings(config: ConfigFile, document: Document, price_of: PriceOf | None = None) -> Iterator[Issue]:
    """All warnings of a valid config, in no order. Without `price_of` nothing is said of missing prices."""
    prices = None if price_of is None else Prices(config, price_of)
    if not config.models:
        yield document.issue(("models",), "no model is defined: every call will be answered model_not_found")
    if config.policy is None:
        yield document.issue(
            ("policy",), "no policy: tool calls are recorded and none is judged; name a policy file"
        )
    if config.oidc.on and not any(one.roles for one in config.operators) and not config.oidc.roles:
        yield document.issue(
            ("oidc",), "lets nobody in: list people with roles under operators, or groups under oidc.roles"
        )
    yield from _agents(config, document)
    yield from budget_warnings(config, document, prices)
    yield from routing_warnings(config, document, prices)
    yield from _short_keys(config, document)
    yield from _dear_prices(config.prices, document)
    if prices and config.unpriced is Unpriced.REFUSE:
        yield from _unpriced(config, document, prices)


def _agents(config: ConfigFile, document: Document) -> Iterator[Issue]:
    for name, agent in config.agents.items():
        if not agent.models:
            yield document.issue(("agents", name), "may call no model: list some under models")
        for n, entry in enumerate(agent.models):
            if not meets(entry, config.models):
                message = f"{entry!r} matches no model: {nearest(entry, config.models)}"
                yield document.issue(("agents", name, "models", n), message)


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


def _unpriced(config: ConfigFile, document: Document, prices: Prices) -> Iterator[Issue]:
    limits = [budget.id for budget in config.budgets if budget.usd is not None]
    if not limits:
        return
    for name, model in config.models.items():
        for n, target in enumerate(model.targets):
            asked = sent(name, target)
            if "*" not in asked and prices.of(name, target) is None:
                yield document.issue(
                    ("models", name, "targets", n),
                    f"no price is known for {asked!r}: calls under the usd limit {limits[0]!r} are refused; "
                    "give it one under prices, or set unpriced: free",
                )
