"""What calls may cost and use: prices, budgets, and who is told when one is reached."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from budgets.amounts import MICRO, Unit
from llm_proxy.config.credentials import Secret
from llm_proxy.config.places import Address
from llm_proxy.config.shapes import Float, Items, Maximum, Name, Rate, Section, Text, Tokens, Usd
from llm_proxy.config.values import known_time_zone, known_window


class PriceConfig(Section):
    """USD per token or piece, and sizes in tokens, in LiteLLM's field names. Replaces the known price whole.

    An absent cache rate is the input's, an absent reasoning rate the output's.
    """

    input_cost_per_token: Rate | None = None
    output_cost_per_token: Rate | None = None
    cache_read_input_token_cost: Rate | None = None
    cache_creation_input_token_cost: Rate | None = None
    output_cost_per_reasoning_token: Rate | None = None
    input_cost_per_image: Rate | None = None
    output_cost_per_image: Rate | None = None
    input_cost_per_character: Rate | None = None
    input_cost_per_query: Rate | None = None
    input_cost_per_second: Rate | None = None
    output_cost_per_second: Rate | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    max_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _prices_something(self) -> Self:
        if not any("_cost_per_" in name for name in self.model_fields_set):
            raise ValueError("prices nothing: give input_cost_per_token and output_cost_per_token")
        return self


class DowngradeConfig(Section):
    """The model to ask in place of one that the limit has no room for."""

    downgrade: Text


class BudgetConfig(Section):
    """Maxima over one window. `agent: "*"` is each agent by itself, no agent and no team all together."""

    id: Name
    agent: Text | None = None
    team: Text | None = None
    user: Text | None = None
    key: Text | None = None
    model: Text | None = None
    tag: Text | None = None
    window: Annotated[Text, AfterValidator(known_window)] | None = None
    """Needed for all but concurrency."""
    timezone: Annotated[Text, AfterValidator(known_time_zone)] = "UTC"
    usd: Usd | None = None
    tokens: Maximum | None = None
    input_tokens: Maximum | None = None
    output_tokens: Maximum | None = None
    requests: Maximum | None = None
    tool_calls: Maximum | None = None
    writes: Maximum | None = None
    concurrency: Annotated[Maximum, Field(ge=1)] | None = None
    """Calls at once."""
    on_exceed: Literal["block", "warn"] | DowngradeConfig = "block"
    warn_at: Annotated[Float, Field(gt=0, le=1)] = 0.8

    @property
    def maximum(self) -> dict[Unit, int]:
        """The most of each limited unit; of usd in micro-dollars."""
        most: dict[Unit, Decimal | int | None] = {unit: getattr(self, unit.value) for unit in Unit}
        return {
            unit: int(value * MICRO) if unit is Unit.USD else int(value)
            for unit, value in most.items()
            if value is not None
        }

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.maximum:
            raise ValueError(f"limits nothing: give at least one of {', '.join(Unit)}")
        if self.window is None and self.maximum.keys() != {Unit.CONCURRENCY}:
            raise ValueError("needs a window: day, month or run, say; only concurrency does without")
        return self


class WebhookConfig(Section):
    """Where events are sent, signed with `secret` as Standard Webhooks says; none named is all."""

    id: Name
    url: Address
    secret: Secret
    events: Items[Text] = ()
