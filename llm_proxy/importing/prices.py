"""A deployment's own prices and sizes, as a row of `prices`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field
from llm_proxy.pricing.names import SIZES, is_rate
from llm_proxy.pricing.row import prices_something


class PriceTable:
    """The rows gathered so far, by PROVIDER/MODEL: the first deployment to price a model does so for all."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.rows: dict[str, Mapping[str, float]] = {}

    def take(self, entry: Field, name: str | None, known: Mapping[str, float] | None) -> None:
        """Reads the prices of one deployment, and speaks of each. `name` is None where no one model is meant.

        Without a rate of its own, a deployment that tells sizes (or a `base_model`) gets the `known` price.
        """
        fields = dict(_own(entry))
        base = entry.at("model_info").get("base_model")
        own = {key: number for key, field in fields.items() if (number := _number(key, field)) is not None}
        priced = prices_something(own)
        row = own if priced else {**(known or {}), **own}
        if name is None:
            self._refuse(fields, base, "prices go by a model's name, and a wildcard has none")
        elif not prices_something(row):
            self._refuse(fields, base, "LiteLLM's table has no price to put it with: give the model a price")
        elif row and (own or base) and self.rows.setdefault(name, row) != row:
            self._refuse(fields, base, f"prices.{name} has what an earlier deployment says of the same model")
        else:
            self._tell(fields, base, own, name, priced=priced)

    def _tell(
        self,
        fields: Mapping[str, Field],
        base: Field | None,
        own: Mapping[str, float],
        name: str,
        *,
        priced: bool,
    ) -> None:
        for key, field in fields.items():
            if key in own:
                self._notes.exact(field, f"prices.{name}.{key}")
            else:
                self._notes.unsupported(field, "is no number that a price or a size can have")
        if base is not None and priced:
            self._notes.exact(base, note="has no effect: the deployment has a price of its own")
        elif base is not None:
            note = "the price that LiteLLM's table has for it today is copied"
            self._notes.approximate(base, f"prices.{name}", note)

    def _refuse(self, fields: Mapping[str, Field], base: Field | None, why: str) -> None:
        for field in fields.values():
            self._notes.unsupported(field, why)
        if base is not None:
            self._notes.unsupported(base, why)


def _own(entry: Field) -> Iterator[tuple[str, Field]]:
    """What the deployment says; `litellm_params` wins over `model_info`, as there.

    Sizes stand in `model_info` alone: `litellm_params.max_tokens` is a default of requests.
    """
    own = entry.at("litellm_params").entries()
    rates = {key: field for key, field in own if is_rate(key)}
    info = {key: field for key, field in entry.at("model_info").entries() if is_rate(key) or key in SIZES}
    yield from (info | rates).items()


def _number(key: str, field: Field) -> float | None:
    if key in SIZES:
        return field.whole(1, 2**62)
    return field.number if field.number is not None and field.number >= 0 else None
