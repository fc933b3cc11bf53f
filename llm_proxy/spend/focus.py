"""Spend as charges of the FinOps Open Cost and Usage Specification (FOCUS) 1.2: one a day and combination.

A charge is a row of the daily sums. What the specification says of each column:
https://focus.finops.org/focus-specification/v1-2/. Unit prices and what hangs on them (`ListUnitPrice`,
`ContractedUnitPrice`, `SkuPriceId`) are left out, as it allows: a charge blends several rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select

from llm_proxy.records.evidence import SpendRow
from llm_proxy.records.tables import spend
from llm_proxy.spend.cells import dollars, lines, text
from llm_proxy.spend.question import Question
from llm_proxy.spend.sources import conditions

UNKNOWN_PROVIDER = "llm-proxy"
"""Provider of what was charged for calls that no target is known of: their proxy died."""
COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)
OWN_COLUMNS = (
    "x_Model",
    "x_Target",
    "x_UserId",
    "x_Requests",
    "x_FailedRequests",
    "x_RetriedRequests",
    "x_UnpricedRequests",
    "x_InputTokens",
    "x_CachedTokens",
    "x_CacheWriteTokens",
    "x_OutputTokens",
    "x_ReasoningTokens",
    "x_LostCost",
    "x_EstimatedCost",
)
"""Columns of our own, marked as the specification asks."""
_FETCHED = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def focus(
    connection: Connection | None, question: Question, account: str, limit: int | None = None
) -> Iterator[str]:
    """CSV of the charges within whole days, in lines as they are read. `account` stands for who pays."""
    charges = () if connection is None else _charges(connection, question, account, limit)
    return lines((*COLUMNS, *OWN_COLUMNS), charges)


def _charges(
    connection: Connection, question: Question, account: str, limit: int | None
) -> Iterator[list[str | int]]:
    statement = _select(question, postgresql=connection.dialect.name == "postgresql").limit(limit)
    with connection.execute(statement, execution_options={"yield_per": _FETCHED}) as rows:
        for row in rows:
            charge = SpendRow(*row)
            yield [_cell(value) for value in (*_charge(charge, account).values(), *_own(charge))]


def _select(question: Question, *, postgresql: bool) -> Select[Any]:
    """Rows that something was used or charged in: a refused call is no charge."""
    c = spend.c
    used = (c.input_tokens > 0) | (c.output_tokens > 0) | (c.micro_usd > 0)
    wanted = conditions(spend, question, postgresql=postgresql)
    columns = [c[name] for name in SpendRow._fields]
    return select(*columns).where(used, *wanted).order_by(c.day, c.id)


def _charge(row: SpendRow, account: str) -> dict[str, str | int | None]:
    """One charge, by column, in the order of `COLUMNS`. None is null."""
    periods = _periods(row.day)
    cost = dollars(row.micro_usd)
    provider = row.provider or UNKNOWN_PROVIDER
    tokens = row.input_tokens + row.output_tokens
    quantity, unit = (tokens, "Tokens") if tokens else (row.requests, "Requests")
    values: dict[str, str | int | None] = {
        "BilledCost": cost,
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": periods["BillingPeriodEnd"],
        "BillingPeriodStart": periods["BillingPeriodStart"],
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"Model {row.model or 'unknown'} used by agent {row.agent_id}"[:1_024],
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": periods["ChargePeriodEnd"],
        "ChargePeriodStart": periods["ChargePeriodStart"],
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": provider,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ProviderName": provider,
        "PublisherName": provider,
        "RegionId": None,
        "ResourceId": row.agent_id or None,
        "ResourceName": row.agent_id or None,
        "ResourceType": "AI Agent" if row.agent_id else None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{provider} model API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{provider}/{row.model}",
        "SubAccountId": row.team or None,
        "SubAccountName": row.team or None,
        "Tags": _tags(row.tags),
    }
    return values


def _own(row: SpendRow) -> tuple[str | int | None, ...]:
    """In the order of `OWN_COLUMNS`."""
    return (
        row.model or None,
        row.target or None,
        row.user_id or None,
        row.requests,
        row.failed,
        row.retried,
        row.unpriced,
        row.input_tokens,
        row.cached_tokens,
        row.cache_write_tokens,
        row.output_tokens,
        row.reasoning_tokens,
        dollars(row.lost_micro_usd),
        dollars(row.guessed_micro_usd),
    )


def _tags(tags: str) -> str | None:
    """A JSON object: `KEY=value` and `KEY:value` as pairs, the first of each key; other tags are true."""
    found: dict[str, str | bool] = {}
    for tag in tags.split(",") if tags else ():
        at = min((at for at in (tag.find("="), tag.find(":")) if at > 0), default=0)
        key, value = (tag[:at], tag[at + 1 :]) if at else (tag, True)
        found.setdefault(key, value)
    return msgspec.json.encode(found).decode() if found else None


@lru_cache(maxsize=64)
def _periods(day: int) -> dict[str, str]:
    """The charge's and the billing period's columns of a day."""
    start = _EPOCH + timedelta(days=day)
    month = start.replace(day=1)
    ends = {
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + timedelta(days=1),
    }
    return {name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in ends.items()}


def _cell(value: str | int | None) -> str | int:
    return "" if value is None else text(value) if isinstance(value, str) else value
