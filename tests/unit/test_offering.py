"""A declaration is read once: for each policy, role, list of tools and envelope that it is offered under."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from llm_proxy.errors import ProxyError
from llm_proxy.identity.lineage import ALONE, Lineage
from llm_proxy.identity.names import NameSet
from llm_proxy.judging import Rules
from llm_proxy.offering import Offering
from llm_proxy.policy.schema import Mode, OnDeny
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.unit.policy_judging import engine

ENGINE = engine()


def rules(sha256: str = "a") -> Rules:
    return Rules(ENGINE, sha256, Mode.ENFORCE, OnDeny.REPLACE)


def exchange(
    *tools: str, role: str = "support", own: Any = ("*",), lineage: Lineage = ALONE, **more: Any
) -> Any:
    declared = [{"type": "function", "function": {"name": name}} for name in tools]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": declared} | more
    agent = SimpleNamespace(role=role, tools=own)
    return SimpleNamespace(
        offer=None,
        whole=None,
        dialect=OPENAI_CHAT,
        request=OPENAI_CHAT.parse(json.dumps(body).encode()),
        caller=SimpleNamespace(agent=agent),
        lineage=lineage,
    )


def test_the_same_declaration_is_one_object_for_all_that_it_depends_on() -> None:
    offering = Offering()
    lineage = Lineage(tools=(NameSet(["crm_*"]),))

    def made(of: Any, of_rules: Rules | None) -> Any:
        offering.look(of, of_rules)
        return of.offer

    first = made(exchange("crm_read", "wipe"), rules())
    assert [one.tool for one in first.withheld] == ["wipe"]
    assert made(exchange("crm_read", "wipe", seed=7), rules()) is first
    others = [
        made(exchange("crm_read", "wipe"), rules("b")),
        made(exchange("crm_read", "wipe", role="other"), rules()),
        made(exchange("crm_read", "wipe", own=("crm_*",)), rules()),
        made(exchange("crm_read", "wipe", lineage=lineage), rules()),
        made(exchange("crm_read", "wipe", tool_choice="auto"), rules()),
        made(exchange("wipe", "crm_read"), rules()),
    ]
    assert all(other is not first for other in others)
    assert [[one.rule for one in other.withheld] for other in others] == [
        ["prohibited"],
        ["role", "prohibited"],
        ["agent-tools"],
        ["envelope"],
        ["prohibited"],
        ["prohibited"],
    ]


def test_where_nothing_could_be_withheld_nothing_is_read() -> None:
    offering = Offering()
    free = exchange("anything")
    offering.look(free, None)
    assert free.offer is None
    listed = exchange("anything", own=("crm_*",))
    offering.look(listed, None)
    assert [one.rule for one in listed.offer.withheld] == ["agent-tools"]
    silent = exchange()
    del silent.request.spans["tools"]
    offering.look(silent, rules())
    assert silent.offer is None


def test_what_is_forced_and_withheld_is_refused_each_time() -> None:
    offering = Offering()
    choice = {"type": "function", "function": {"name": "wipe"}}
    for _ in range(2):
        with pytest.raises(ProxyError, match="'wipe'"):
            offering.look(exchange("wipe", tool_choice=choice), rules())
