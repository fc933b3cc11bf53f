"""What is known of a target's model: the config's own price of it, else what a price table lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.config.schema import ConfigFile, TargetConfig


class Listed(Protocol):
    """A price that is known."""

    @property
    def window(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None where that isn't known."""
        ...


PriceOf = Callable[[str, str], Listed | None]
"""The listed price of (provider, model), the config's own `prices` apart."""


@dataclass(frozen=True, slots=True)
class _Own:
    window: int | None


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
                return _Own(own.max_input_tokens)
        return self.listed(target.provider, name)

    def window(self, model: str) -> int | None:
        """The longest prompt that any target of `model` takes; None where that isn't known of all."""
        known = [self.of(model, target) for target in self.config.models[model].targets]
        windows = [price.window for price in known if price is not None and price.window is not None]
        return max(windows) if len(windows) == len(known) else None


def sent(model: str, target: TargetConfig) -> str:
    """The name that the provider is asked for; it has a `*` where callers choose it."""
    return model if target.model == "*" else target.model
