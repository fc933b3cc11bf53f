"""Review of issue 6: values that redaction misses or breaks, and arguments that it rewrites unjudged."""

from __future__ import annotations

import json
from typing import cast

import pytest

from llm_proxy.policy.paths import under
from llm_proxy.policy.vocabulary import Detector, Replacement
from llm_proxy.redacting.rules import Rule, redacted

KEY = b"k" * 32


def after(kind: str, how: str, text: str) -> str:
    rule = Rule("r", "*", (), cast("Detector", kind), cast("Replacement", how), None)
    return redacted([rule], text, KEY)[0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "DE89370400440532013000"),
        ("phone", "+49 170 1234567"),
        ("email", "ada@example.com"),
        ("card_number", "4111 1111 1111 1111"),
    ],
)
@pytest.mark.parametrize("how", ["mask", "token", "remove"])
@pytest.mark.parametrize("blank", ["\n", "\t"])
def test_a_value_behind_an_escape_is_found_and_the_json_stays(
    kind: str, value: str, how: str, blank: str
) -> None:
    said = after(kind, how, json.dumps({"note": f"Pay to:{blank}{value}"}))
    note = json.loads(said)["note"]
    assert value not in note
    assert note.startswith(f"Pay to:{blank}")


@pytest.mark.parametrize("number", ["4111111111111111.0", "4111111111111111e0", "-4111111111111111"])
def test_a_number_that_is_replaced_leaves_json(number: str) -> None:
    json.loads(after("card_number", "mask", f'{{"n": {number}}}'))


def test_removing_a_value_makes_no_path_that_was_never_judged() -> None:
    path = "/srv/exports/.4111111111111111./.4111111111111111./etc/passwd"
    assert under(("/srv/exports",), path)
    released = json.loads(after("card_number", "remove", json.dumps({"path": path})))["path"]
    assert under(("/srv/exports",), released), released
