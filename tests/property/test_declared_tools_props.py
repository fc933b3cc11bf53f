"""Withholding tools from any list of them: JSON stays JSON, and what is kept stands as it stood."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.offer import offer
from llm_proxy.policy.context import AgentFacts
from llm_proxy.policy.offers import Offers, Reason
from llm_proxy.policy.permitted import Permitted
from llm_proxy.policy.schema import Decision
from llm_proxy.policy.verdict import Proposed
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.spans import splice
from tests.unit.policy_judging import context, engine

_TEXT = st.text(max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
_INDENT = st.sampled_from([None, 0, 1, 3])


def _chat(name: str, more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": more}}


def _responses(name: str, more: Any) -> dict[str, Any]:
    return {"parameters": more, "type": "function", "name": name}


def _sent(dialect: Dialect, body: bytes, gone: frozenset[str]) -> dict[str, Any]:
    request = dialect.parse(body)
    assert dialect.declares is not None
    found = dialect.declares.read(request)
    reasons = [Reason("no", "") if gone & tool.chosen_by else None for tool in found.tools]
    made = offer(found, reasons, shadow=False, passes=False)
    sent = splice(
        body, made.edits(request) + dialect.upstream_edits(request, "other", ("max_output_tokens", 9))
    )
    dialect.parse(sent)
    return json.loads(sent)


@settings(max_examples=200)
@given(
    tools=st.lists(st.tuples(_NAMES, _JSON), min_size=1, max_size=6),
    gone=st.frozensets(_NAMES),
    first=st.booleans(),
    indent=_INDENT,
)
def test_chat_keeps_the_rest_in_its_order(
    tools: list[tuple[str, Any]], gone: frozenset[str], first: bool, indent: int | None
) -> None:
    declared = {"tools": [_chat(*tool) for tool in tools], "tool_choice": "auto"}
    rest = {"model": "m", "messages": [{"role": "user", "content": "x, ]}"}], "seed": 3}
    body = json.dumps(declared | rest if first else rest | declared, indent=indent).encode()
    left = [_chat(*tool) for tool in tools if tool[0] not in gone]
    wanted = rest | {"model": "other", "max_output_tokens": 9}
    wanted |= {"tools": left, "tool_choice": "auto"} if left else {}
    assert _sent(OPENAI_CHAT, body, gone) == wanted


@settings(max_examples=200)
@given(
    tools=st.lists(
        st.tuples(_NAMES, _JSON) | st.lists(st.tuples(_NAMES, _JSON), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ),
    gone=st.frozensets(_NAMES.map(lambda name: f"n__{name}") | _NAMES),
    indent=_INDENT,
)
def test_responses_keeps_what_is_left_of_namespaces(
    tools: list[Any], gone: frozenset[str], indent: int | None
) -> None:
    def declared(keep: bool) -> list[Any]:
        found: list[Any] = []
        for tool in tools:
            if isinstance(tool, tuple):
                found += [_responses(*tool)] if keep or tool[0] not in gone else []
                continue
            members = [_responses(*one) for one in tool if keep or f"n__{one[0]}" not in gone]
            found += [{"name": "n", "type": "namespace", "tools": members}] if members else []
        return found

    body = json.dumps({"input": "hi", "tools": declared(True), "model": "m"}, indent=indent).encode()
    wanted: dict[str, Any] = {"input": "hi", "model": "other", "max_output_tokens": 9}
    wanted |= {"tools": left} if (left := declared(False)) else {}
    assert _sent(OPENAI_RESPONSES, body, gone) == wanted


@settings(max_examples=150)
@given(
    name=st.sampled_from(["crm_read", "mail_send", "pay", "wipe", "plain", "nowhere", "", "repo_read"]),
    role=st.sampled_from(["support", "other"]),
    tools=st.sampled_from([("*",), ("crm_*",), ("pay", "wipe")]),
    arguments=st.dictionaries(st.sampled_from(["id", "to", "repo"]), _JSON, max_size=3),
)
def test_what_is_never_offered_is_always_denied(
    name: str, role: str, tools: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    judged = engine()
    permitted = Permitted(tools)
    if Offers(judged.policy, role, permitted).never(name) is None:
        return
    (verdict,) = judged.decide(
        [Proposed("1", name, json.dumps(arguments))], context(agent=AgentFacts("bot", role=role))
    )
    assert permitted.judged(verdict, name).decision is Decision.DENY
