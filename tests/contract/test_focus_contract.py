"""FOCUS charges keep every rule that the specification (1.2) states for the columns used."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.spend import Wish, focus_csv
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Evidence, SpendRow
from llm_proxy.spend.focus import COLUMNS, OWN_COLUMNS
from llm_proxy.spend.question import Filters
from tests.booked import DAY_US, Books
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, writing

pytest_plugins = ["tests.postgres"]

MANDATORY = {
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost"),
    *("PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
}
"""Columns of feature level Mandatory."""
NOT_NULL = (
    MANDATORY - {"ChargeClass"}
    | {"ServiceSubcategory", "ChargeFrequency"}
    | {"ConsumedQuantity", "ConsumedUnit", "PricingCategory", "SkuId"}
)
"""Never null, the last line since each charge is usage and no correction."""
NULL = {"ChargeClass", "RegionId"}
DECIMALS = (
    "BilledCost",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "ConsumedQuantity",
    "PricingQuantity",
)
TIMES = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


async def _charges(
    engine: Engine, wish: Wish | None = None, seed: int = 1
) -> tuple[Books, list[dict[str, str]]]:
    async with writing(engine) as writer:
        books = Books(engine, writer, seed)
        await books.write(60)
    return books, _read(engine, wish or Wish())


def _read(engine: Engine, wish: Wish) -> list[dict[str, str]]:
    with engine.connect() as connection:
        whole = "".join(focus_csv(connection, wish, "prod", NOW))
    return list(csv.DictReader(io.StringIO(whole)))


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


async def test_columns_are_there_and_named_as_they_must_be(engine: Engine) -> None:
    _, charges = await _charges(engine)
    assert charges
    assert list(charges[0]) == [*COLUMNS, *OWN_COLUMNS]
    assert set(COLUMNS) >= MANDATORY
    assert all(re.fullmatch(r"[A-Z][A-Za-z]{1,49}", name) for name in COLUMNS)
    assert all(re.fullmatch(r"x_[A-Z][A-Za-z]{1,47}", name) for name in OWN_COLUMNS)
    assert len(set(charges[0])) == len(charges[0])


async def test_what_must_have_a_value_has_one_and_nothing_stands_for_none(engine: Engine) -> None:
    _, charges = await _charges(engine)
    for charge in charges:
        for column in NOT_NULL:
            assert charge[column] != "", column
        for column in NULL:
            assert charge[column] == ""
        for column, value in charge.items():
            assert value == value.strip(), column
            assert value.lower() not in {"null", "none", "n/a", "not applicable", "unknown"}, column


async def test_numbers_and_times_are_written_as_they_must_be(engine: Engine) -> None:
    _, charges = await _charges(engine)
    for charge in charges:
        for column in DECIMALS:
            assert NUMBER.fullmatch(charge[column]), column
            assert Decimal(charge[column]) >= 0
        for column in OWN_COLUMNS[3:]:
            assert NUMBER.fullmatch(charge[column]), column
        for column in TIMES:
            assert _time(charge[column])


async def test_values_come_from_the_lists_that_are_allowed(engine: Engine) -> None:
    _, charges = await _charges(engine)
    for charge in charges:
        assert charge["BillingCurrency"] == "USD"
        assert charge["ChargeCategory"] == "Usage"
        assert charge["ChargeFrequency"] == "Usage-Based"
        assert charge["PricingCategory"] == "Standard"
        assert charge["ServiceCategory"] == "AI and Machine Learning"
        assert charge["ServiceSubcategory"] == "Generative AI"
        assert charge["PricingUnit"] == charge["ConsumedUnit"]
        assert charge["PricingUnit"] in {"Tokens", "Requests"}
        assert len(charge["ChargeDescription"]) <= 1_024
        assert charge["ResourceType"] if charge["ResourceId"] else not charge["ResourceType"]
        assert bool(charge["SubAccountName"]) is bool(charge["SubAccountId"])


async def test_a_charge_lies_in_its_day_and_its_billing_month(engine: Engine) -> None:
    _, charges = await _charges(engine)
    for charge in charges:
        begins, ends, day, until = (
            _time(charge[column])
            for column in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
        )
        assert begins == day.replace(day=1)
        assert ends.day == 1
        assert timedelta(days=28) <= ends - begins <= timedelta(days=31)
        assert begins <= day < until <= ends
        assert until - day == timedelta(days=1)


async def test_costs_and_quantities_add_up_to_what_was_spent(engine: Engine) -> None:
    books, charges = await _charges(engine)
    spent = Decimal(sum(call.micro_usd for call in books.called)) / 1_000_000
    for column in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(charge[column]) for charge in charges) == spent
    tokens = sum(int(charge["ConsumedQuantity"]) for charge in charges if charge["ConsumedUnit"] == "Tokens")
    assert tokens == sum(call.input + call.output for call in books.called)
    assert sum(Decimal(charge["x_LostCost"]) for charge in charges) * 1_000_000 == sum(
        call.lost for call in books.called
    )


async def test_tags_are_a_flat_object_with_each_key_once(engine: Engine) -> None:
    _, charges = await _charges(engine)
    seen: list[dict[str, Any]] = []
    for charge in charges:
        if not charge["Tags"]:
            continue
        tags = msgspec.json.decode(charge["Tags"], type=dict[str, str | bool])
        assert all(value is True or isinstance(value, str) for value in tags.values())
        seen.append(tags)
    assert {"env": "prod"} in seen
    assert {"env": "test", "nightly": True} in seen
    assert {"env": "blue"} in seen, "of env:blue and env=prod the first that is stored stands"
    assert {"=evil": True, "cost": "1"} in seen


async def test_refused_calls_are_no_charges_and_dead_ones_are(engine: Engine) -> None:
    books, charges = await _charges(engine)
    assert all(int(charge["ConsumedQuantity"]) > 0 for charge in charges)
    assert {charge["ProviderName"] for charge in charges} == {"openai", "anthropic", "llm-proxy"}
    dead = [charge for charge in charges if charge["ProviderName"] == "llm-proxy"]
    assert sum(Decimal(charge["BilledCost"]) * 1_000_000 for charge in dead) == 77 * sum(
        call.provider == "" and call.micro_usd > 0 for call in books.called
    )


async def test_a_call_without_tokens_is_counted_by_the_request(engine: Engine) -> None:
    row = SpendRow(9, b"x" * 16, "=bot", "", "", "m", "t", "openai", "", requests=3, micro_usd=40_000)
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, Evidence(spend=(row,)))))
    (charge,) = _read(engine, Wish())
    assert (charge["ConsumedQuantity"], charge["ConsumedUnit"], charge["BilledCost"]) == (
        "3",
        "Requests",
        "0.04",
    )
    assert charge["ResourceId"] == "'=bot"


async def test_times_are_whole_days_and_filters_apply(engine: Engine) -> None:
    books, _ = await _charges(engine)
    midnight = NOW - NOW % DAY_US - DAY_US
    since = datetime.fromtimestamp((midnight + 3_600_000_000) / 1e6, UTC).isoformat()
    charges = _read(engine, Wish(since=since, where=Filters(agent="bot-1")))
    within = [call for call in books.called if call.started_us >= midnight and call.agent == "bot-1"]
    assert sum(Decimal(charge["BilledCost"]) * 1_000_000 for charge in charges) == sum(
        call.micro_usd for call in within
    )
    assert len(_read(engine, Wish(limit=2))) == 2
    for wish in (Wish(by="agent"), Wish(where=Filters(run="r")), Wish(since="never")):
        with pytest.raises(Unclear):
            _read(engine, wish)
