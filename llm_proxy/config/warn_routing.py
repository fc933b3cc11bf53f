"""What of a model's routing has no effect, or leads in a circle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm_proxy.config.check import FALLBACKS
from llm_proxy.config.choices import Hold, OnCut, StrategyName
from llm_proxy.config.listed import Prices, sent
from llm_proxy.config.schema import ConfigFile, ModelConfig
from llm_proxy.yamlpos import Document, Issue

_WEIGHING = frozenset({StrategyName.WEIGHTED, StrategyName.LEAST_BUSY})


def routing_warnings(config: ConfigFile, document: Document, prices: Prices | None) -> Iterator[Issue]:
    """Without `prices`, nothing is said of what rests on them."""
    for kind in FALLBACKS:
        yield from _cycles(kind, config.models, document)
    for name, model in config.models.items():
        yield from _idle_weights(name, model, document)
        if model.hedge_after is not None and len(model.targets) == 1 and not model.fallbacks:
            message = "has no second target to start: give the model another target, or a fallback"
            yield document.issue(("models", name, "hedge_after"), message)
        yield from _whole_holds(name, model, document)
        if prices is not None:
            yield from _unknown_costs(name, model, document, prices)
            yield from _small_windows(name, model, document, prices)


def _idle_weights(name: str, model: ModelConfig, document: Document) -> Iterator[Issue]:
    if model.strategy in _WEIGHING:
        return
    for n, target in enumerate(model.targets):
        if target.weight != 1:
            message = f"has no effect with strategy `{model.strategy}`: only weighted and least-busy weigh"
            yield document.issue(("models", name, "targets", n, "weight"), message)


def _whole_holds(name: str, model: ModelConfig, document: Document) -> Iterator[Issue]:
    if model.hold is not Hold.EXPECTED or (len(model.targets) == 1 and not model.fallbacks):
        return
    for key, set_ in (
        ("hedge_after", model.hedge_after is not None),
        ("on_cut", model.on_cut is OnCut.CONTINUE),
    ):
        if set_:
            message = f"has no effect where `{key}` may use two targets for one reply: leave one of both out"
            yield document.issue(("models", name, "hold"), message)


def _unknown_costs(name: str, model: ModelConfig, document: Document, prices: Prices) -> Iterator[Issue]:
    targets = model.targets
    if model.strategy is not StrategyName.LOWEST_COST or any("*" in sent(name, target) for target in targets):
        return
    if all(prices.of(name, target) is None for target in targets):
        message = "has no effect, since no target's price is known: give them prices, or name another one"
        yield document.issue(("models", name, "strategy"), message)


def _small_windows(name: str, model: ModelConfig, document: Document, prices: Prices) -> Iterator[Issue]:
    most = prices.window(name) if model.context_fallbacks else None
    for n, fallback in enumerate(model.context_fallbacks):
        window = prices.window(fallback) if fallback in prices.config.models and fallback != name else None
        if most is not None and window is not None and window <= most:
            yield document.issue(
                ("models", name, "context_fallbacks", n),
                f"{fallback!r} takes no longer prompts ({window:,} tokens) than {name!r} ({most:,}): "
                "name a model with a larger window",
            )


def _cycles(kind: str, models: Mapping[str, ModelConfig], document: Document) -> Iterator[Issue]:
    """One warning per ring of fallbacks, at the model of it that stands first in the file."""
    told: set[str] = set()
    for name in models:
        ring = None if name in told else _ring(kind, name, models)
        if ring:
            told.update(ring)
            chain = " → ".join((*ring, name))
            yield document.issue(
                ("models", name, kind), f"falls back in a circle ({chain}): each is tried once"
            )


def _ring(kind: str, start: str, models: Mapping[str, ModelConfig]) -> tuple[str, ...] | None:
    """The shortest way from `start` back to itself, by literal names."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    for way in ways:
        onward: tuple[str, ...] = getattr(models[way[-1]], kind)
        for fallback in onward:
            if fallback == start:
                return way
            if fallback in models and fallback not in seen:
                seen.add(fallback)
                ways.append((*way, fallback))
    return None
