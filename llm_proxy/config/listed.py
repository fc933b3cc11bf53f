"""What is known of a target's model: the config's own price of it, else what a price table lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.config.schema import ConfigFile, TargetConfig


class Listed(Protocol):
    """A price that is known."""

    @property
    def window(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None where that isn't known."""
        ...

    @property
    def listed(self) -> Mapping[str, float]:
        """USD and sizes, by LiteLLM's names."""
        ...


USUAL_OUTPUT = 4_096
"""The largest reply, in tokens, of a model of which it isn't known."""
PriceOf = Callable[[str, str], Listed | None]
"""The listed price of (provider, model), the config's own `prices` apart."""


@dataclass(frozen=True, slots=True)
class _Own:
    window: int | None
    listed: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that any target of a model costs, in USD per token, and the largest reply that any gives."""

    input: float
    output: float
    max_output: int


@dataclass(frozen=True, slots=True)
class Prices:
    config: ConfigFile
    listed: PriceOf

    def of(self, model: str, target: TargetConfig) -> Listed | None:
        """What is known of the model that `target` of `model` is asked for."""
        name = sent(model, target)
        for key in (f"{target.provider}/{name}", name):
            own = self.config.prices.get(key)
            if own is not None:
                return _Own(own.max_input_tokens, own.model_dump(exclude_none=True))
        return self.listed(target.provider, name)

    def rates(self, model: str) -> Dearest | None:
        """Of all targets of `model`; None where one isn't priced by the token, or callers choose its name."""
        found = [self.of(model, target) for target in self.config.models[model].targets]
        rows = [price.listed for price in found if price is not None]
        pairs = [(row.get("input_cost_per_token"), row.get("output_cost_per_token")) for row in rows]
        known = [(into, out) for into, out in pairs if into is not None and out is not None]
        if "*" in model or not known or len(known) < len(found):
            return None
        largest = [row.get("max_output_tokens") or row.get("max_tokens") or USUAL_OUTPUT for row in rows]
        return Dearest(max(into for into, _ in known), max(out for _, out in known), int(max(largest)))

    def window(self, model: str) -> int | None:
        """The longest prompt that any target of `model` takes; None where that isn't known of all."""
        known = [self.of(model, target) for target in self.config.models[model].targets]
        windows = [price.window for price in known if price is not None and price.window is not None]
        return max(windows) if len(windows) == len(known) else None


def sent(model: str, target: TargetConfig) -> str:
    """The name that the provider is asked for; it has a `*` where callers choose it."""
    return model if target.model == "*" else target.model
