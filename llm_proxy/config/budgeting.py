"""What calls may cost and use: prices, budgets, and who is told when one is reached."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from budgets.amounts import MICRO, Unit
from llm_proxy.config.credentials import ApiKey
from llm_proxy.config.places import Address
from llm_proxy.config.shapes import Float, Items, Maximum, Name, Rate, Section, Text, Tokens, Usd
from llm_proxy.config.values import known_event, known_time_zone, known_window, usable_secret
from llm_proxy.identity.lineage import ENVELOPE
from llm_proxy.pricing.names import is_rate
from llm_proxy.pricing.row import prices_something


class PriceConfig(Section):
    """USD per token or piece, and sizes in tokens, in LiteLLM's field names. Replaces the known price whole.

    A token's rate may also hold only above so many tokens of prompt, or in a service tier: those names
    (`input_cost_per_token_above_200k_tokens_priority`) are extra fields. What an absent rate is,
    `pricing.row` says.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Rate] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    input_cost_per_token: Rate | None = None
    output_cost_per_token: Rate | None = None
    cache_read_input_token_cost: Rate | None = None
    cache_creation_input_token_cost: Rate | None = None
    cache_creation_input_token_cost_above_1hr: Rate | None = None
    output_cost_per_reasoning_token: Rate | None = None
    input_cost_per_audio_token: Rate | None = None
    output_cost_per_audio_token: Rate | None = None
    cache_read_input_audio_token_cost: Rate | None = None
    input_cost_per_image_token: Rate | None = None
    output_cost_per_image_token: Rate | None = None
    cache_read_input_image_token_cost: Rate | None = None
    input_cost_per_image: Rate | None = None
    output_cost_per_image: Rate | None = None
    input_cost_per_character: Rate | None = None
    input_cost_per_query: Rate | None = None
    input_cost_per_second: Rate | None = None
    output_cost_per_second: Rate | None = None
    output_cost_per_video_per_second: Rate | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    max_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _prices_something(self) -> Self:
        unknown = [name for name in self.model_extra or {} if not is_rate(name)]
        if unknown:
            errors = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=None) for name in unknown]
            raise ValidationError.from_exception_data("PriceConfig", errors)
        if not prices_something(name for name, value in self if value is not None):
            raise ValueError("prices nothing: give input_cost_per_token and output_cost_per_token")
        return self


class DowngradeConfig(Section):
    """The model to ask in place of one that the limit has no room for."""

    downgrade: Text


def _of_config(id_: str) -> str:
    if id_.startswith(ENVELOPE):
        raise ValueError(f"must not begin with {ENVELOPE!r}: so begin those of runs' envelopes")
    return id_


class BudgetConfig(Section):
    """Maxima over one window. `agent: "*"` is each agent by itself, no agent and no team all together."""

    id: Annotated[Name, AfterValidator(_of_config)]
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
    """Where events are sent, signed with `secret` as Standard Webhooks says; none named is all of them."""

    id: Name
    url: Address
    secret: Annotated[ApiKey, AfterValidator(usable_secret)]
    events: Items[Annotated[Text, AfterValidator(known_event)]] = ()
    content: bool = False
    """Whether events of approvals hold the arguments."""
    links_for: Items[Text] = ()
    """Operators for each of whom `approval.requested` carries a link that decides once, as that operator."""
