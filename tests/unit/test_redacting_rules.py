"""Rules of `redact` on texts: fields of JSON by their place, detected values, and what stands for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.policy.load import PolicyErrors, read_policy
from llm_proxy.redacting.rules import Redaction, redacted, redaction_of

SECRET = b"s" * 32
TOKEN = "tok_"


def rules_of(*entries: dict[str, Any], id_: str = "p", secret: bytes = SECRET) -> Redaction:
    told = [{"id": f"r{n}", "in": ["tool_result"], **entry} for n, entry in enumerate(entries)]
    raw = json.dumps({"policy": {"id": id_, "version": 1}, "redact": told}).encode()
    return redaction_of(read_policy(raw, "policy.yaml").file, secret)


def told(text: str, *entries: dict[str, Any]) -> str:
    rules = rules_of(*entries)
    return redacted(rules.results, text, rules.key)[0]


IBAN = {"field": "$.customer.iban", "with": "mask"}
CARD = {"detect": "card_number", "with": "last4"}


def test_a_field_is_replaced_where_it_stands_and_no_other_byte_changes() -> None:
    text = '{ "customer" : {"iban":"DE89",\n "name":"iban", "n":1.0e2},"iban":"left" }'
    assert told(text, IBAN) == text.replace('"DE89"', '"[redacted]"')


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ('[{"customer":[{"iban":"a"},{"iban":7}]}]', '[{"customer":[{"iban":"X"},{"iban":"X"}]}]'),
        ('{"customer":{"iban":{"a":[1,{"b":"}"}]},"z":1}}', '{"customer":{"iban":"X","z":1}}'),
        ('{"customer":{"iban":["a",["b"],null]}}', '{"customer":{"iban":["X",["X"],null]}}'),
        ('{"customer":{"iban":"a","iban":"b"}}', '{"customer":{"iban":"X","iban":"X"}}'),
        ('{"customer":{"\\u0069ban":"a"}}', '{"customer":{"\\u0069ban":"X"}}'),
        (
            '{"customer":{"iban":1}}\n{"customer":{"iban":2}}',
            '{"customer":{"iban":"X"}}\n{"customer":{"iban":"X"}}',
        ),
        ('{"x":{"customer":{"iban":"a"}}}', '{"x":{"customer":{"iban":"a"}}}'),
        ('{"customer":"iban"}', '{"customer":"iban"}'),
        ("the customer has no iban", "the customer has no iban"),
        ('{"customer":{"iban":NaN}}', '{"customer":{"iban":"X"}}'),
        ('{"customer":{"iban":{"cut":1', '{"customer":{"iban":"X"'),
    ],
)
def test_every_place_of_a_field(text: str, new: str) -> None:
    assert told(text, IBAN) == new.replace('"X"', '"[redacted]"')


def test_what_stands_for_a_value() -> None:
    text = '{"v": "4111 1111 1111 1111"}'
    field = {"field": "$.v"}
    assert told(text, field | {"with": "last4"}) == '{"v": "****1111"}'
    assert told(text, field | {"with": "remove"}) == '{"v": null}'
    assert told('{"v": "short"}', field | {"with": "last4"}) == '{"v": "[redacted]"}'
    assert told("pay 4111-1111-1111-1111 now", CARD) == "pay ****1111 now"
    assert told("pay 4111-1111-1111-1111 now", CARD | {"with": "remove"}) == "pay  now"


def test_a_token_is_the_same_for_the_same_value_under_one_policy_and_store() -> None:
    token = {"detect": "card_number", "with": "token"}
    spaced, solid = told("4111 1111 1111 1111", token), told("4111111111111111", token)
    assert spaced == solid
    assert spaced.startswith(TOKEN)
    assert told("378282246310005", token) != solid
    for other in (rules_of(token, id_="q"), rules_of(token, secret=b"t" * 32)):
        assert redacted(other.results, "4111111111111111", other.key)[0] != solid
    assert told('{"v": "tok_0123456789abcdef01234567"}', {"field": "$.v", "with": "token"}) == (
        '{"v": "tok_0123456789abcdef01234567"}'
    )


def test_a_number_in_json_becomes_a_string_and_escapes_hide_nothing() -> None:
    assert json.loads(told('{"c": 4111111111111111, "d": [378282246310005]}', CARD)) == {
        "c": "****1111",
        "d": ["****0005"],
    }
    assert json.loads(told('{"c": "\\u0034111 1111 1111 1111"}', CARD)) == {"c": "****1111"}


def test_of_two_rules_for_one_value_the_wider_speaks_then_the_first() -> None:
    text, field = '{"v": "card 4111 1111 1111 1111"}', {"field": "$.v", "with": "mask"}
    assert told(text, field, CARD) == told(text, CARD, field) == '{"v": "[redacted]"}'
    assert told("4111111111111111", CARD, CARD | {"with": "mask"}) == "****1111"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"in": ["tool_result"], "detect": "email", "with": "last4"}, "says too much"),
        ({"in": ["tool_result"], "detect": "secret", "with": "last4"}, "says too much"),
        ({"in": ["tool_args"], "detect": "phone", "with": "remove"}, "joins what stands around"),
        ({"in": ["reply"], "field": "$.a", "with": "mask"}, "needs sensitivity"),
        ({"in": ["reply"], "field": "$.a", "with": "token", "sensitivity": "secret"}, "mask or remove"),
        ({"in": ["reply"], "detect": "iban", "with": "mask", "tool": "crm_*"}, "leave tool out"),
        ({"in": ["record"], "detect": "iban", "with": "mask", "sensitivity": "secret"}, "is for replies"),
    ],
)
def test_rules_that_make_no_sense_are_errors(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        rules_of(entry)
    assert says in str(caught.value.issues[0])
