"""What of the budgets and webhooks can't do what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from budgets import Unit
from llm_proxy.config.approvers import DECIDERS
from llm_proxy.config.budgeting import BudgetConfig, DowngradeConfig
from llm_proxy.config.choices import Event
from llm_proxy.config.credentials import SHORT_CHARS
from llm_proxy.config.listed import Prices
from llm_proxy.config.names import matches, meets, nearest
from llm_proxy.config.places import is_loopback
from llm_proxy.config.schema import AgentConfig, ConfigFile
from llm_proxy.yamlpos import Document, Issue


def budget_warnings(config: ConfigFile, document: Document, prices: Prices | None) -> Iterator[Issue]:
    """Without `prices`, nothing is said of what rests on them."""
    told = {event for webhook in config.webhooks for event in webhook.events or Event}
    for n, budget in enumerate(config.budgets):
        yield from _binds_nobody(n, budget, config, document)
        if "warn_at" in budget.model_fields_set and budget.maximum.keys() == {Unit.CONCURRENCY}:
            message = "has no effect: calls at once are never used up; leave it out"
            yield document.issue(("budgets", n, "warn_at"), message)
        if budget.on_exceed == "warn" and Event.BUDGET_EXCEEDED not in told:
            message = "stops nobody and tells nobody: add a webhook for budget.exceeded, or block"
            yield document.issue(("budgets", n, "on_exceed"), message)
        if prices is not None:
            yield from _dearer(n, budget, config, document, prices)
            yield from _too_small(n, budget, config, document, prices)
    yield from _webhooks(config, document)


def _binds_nobody(n: int, budget: BudgetConfig, config: ConfigFile, document: Document) -> Iterator[Issue]:
    teams = sorted({agent.team for agent in config.agents.values() if agent.team})
    known = (
        ("agent", budget.agent, list(config.agents), "no agent here is named"),
        ("team", budget.team, teams, "no agent here is of team"),
        ("model", budget.model, list(config.models), "no model here is named"),
    )
    fine = True
    for key, entry, names, said in known:
        if entry is not None and not meets(entry, names):
            fine = False
            message = f"{said} {entry!r}: {nearest(entry, names)}"
            yield document.issue(("budgets", n, key), message)
    scoped = [key for key, entry, *_ in known if entry is not None]
    if fine and len(scoped) > 1 and not any(_bound(config, budget)):
        message = f"binds nobody: no agent meets its {' and its '.join(scoped)}"
        yield document.issue(("budgets", n), message)


def _bound(config: ConfigFile, budget: BudgetConfig) -> Iterator[AgentConfig]:
    """The agents whose calls it may count."""
    for name, agent in config.agents.items():
        if budget.agent is not None and not matches(budget.agent, name):
            continue
        if budget.team is not None and not matches(budget.team, agent.team):
            continue
        if budget.model is None or any(_overlap(budget.model, allowed) for allowed in agent.models):
            yield agent


def _overlap(one: str, other: str) -> bool:
    return matches(one, other) or matches(other, one)


def _dearer(
    n: int, budget: BudgetConfig, config: ConfigFile, document: Document, prices: Prices
) -> Iterator[Issue]:
    """Money is saved by no model that costs more than the one it stands in for."""
    if not isinstance(budget.on_exceed, DowngradeConfig) or Unit.USD not in budget.maximum:
        return
    path, instead = ("budgets", n, "on_exceed", "downgrade"), budget.on_exceed.downgrade
    if instead not in config.models:
        return  # a glob serves it, and its price depends on the name
    cost = _cost(prices, instead)
    if cost is None:
        message = f"no price is known for all targets of {instead!r}: give them one under prices"
        yield document.issue(path, message)
        return
    others = [name for name in config.models if name != instead and _in_scope(budget, name)]
    costs = {name: other for name in others if (other := _cost(prices, name)) is not None}
    if costs and max(costs.values()) < cost:
        dearest = max(costs, key=lambda name: costs[name])
        message = f"{instead!r} is dearer than {dearest!r}, which it stands in for: name a cheaper one"
        yield document.issue(path, message)


def _cost(prices: Prices, model: str) -> float | None:
    """USD for three tokens in and one out, at the dearest target; None where a price isn't known."""
    rates = prices.rates(model)
    return None if rates is None else 3 * rates.input + rates.output


def _in_scope(budget: BudgetConfig, model: str) -> bool:
    return budget.model is None or _overlap(budget.model, model)


def _too_small(
    n: int, budget: BudgetConfig, config: ConfigFile, document: Document, prices: Prices
) -> Iterator[Issue]:
    """Where even one call without a cap of its own doesn't fit whole, for any model that is priced."""
    if budget.on_exceed == "warn":
        return
    known = [
        (name, rates) for name in config.models if _in_scope(budget, name) and (rates := prices.rates(name))
    ]
    for unit, most in budget.maximum.items():
        match unit:
            case Unit.USD:
                holds = [
                    (rates.output * rates.max_output * 1e6, name, rates.max_output) for name, rates in known
                ]
            case Unit.TOKENS | Unit.OUTPUT_TOKENS:
                holds = [(float(rates.max_output), name, rates.max_output) for name, rates in known]
            case _:
                continue
        if not holds or most == 0 or min(holds)[0] <= most:
            continue
        _, name, output = min(holds)
        then = "goes to the other model" if budget.on_exceed != "block" else "is kept to what is left"
        message = (
            f"is less than one call may need: {name!r} replies with up to {output:,} tokens, so a call "
            f"without a cap of its own {then}"
        )
        yield document.issue(("budgets", n, unit.value), message)


def _webhooks(config: ConfigFile, document: Document) -> Iterator[Issue]:
    for n, webhook in enumerate(config.webhooks):
        parts = urlsplit(webhook.url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            message = "is not https: events pass readable to everybody on the way"
            yield document.issue(("webhooks", n, "url"), message)
        if len(webhook.secret.get_secret_value()) < SHORT_CHARS:
            message = f"is shorter than {SHORT_CHARS} characters and can be guessed: use a longer one"
            yield document.issue(("webhooks", n, "secret"), message)
    yield from _idle_links(config, document)


def _idle_links(config: ConfigFile, document: Document) -> Iterator[Issue]:
    """Links of people who may not decide, and of webhooks that hear of no approval."""
    roles = {operator.id: operator.roles for operator in config.operators}
    for n, webhook in enumerate(config.webhooks):
        if webhook.links_for and webhook.events and Event.APPROVAL_REQUESTED not in webhook.events:
            message = f"carries no link: list {Event.APPROVAL_REQUESTED} under events"
            yield document.issue(("webhooks", n, "links_for"), message)
        for at, name in enumerate(webhook.links_for):
            if not DECIDERS.intersection(roles[name]):
                message = f"{name!r} has neither role approver nor admin, and gets no link"
                yield document.issue(("webhooks", n, "links_for", at), message)
