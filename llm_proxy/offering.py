"""Looks through what a request declares, before anything goes upstream: what an agent may call is offered."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.facts import Facts
from llm_proxy.judge import permitted
from llm_proxy.judging import Rules
from llm_proxy.lately import Lately
from llm_proxy.offer import Offer, offer
from llm_proxy.policy.offers import Offers, Reason, Served, served
from llm_proxy.policy.schema import Declare, Mode
from llm_proxy.records.runstate import RunState
from llm_proxy.wire.declared import Declared, Hosted
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import WireRequest

_REMEMBERED = 2_000
_MEMORY = 1 << 24
"""Bytes of the offers that are remembered."""
_EACH = 512
"""Bytes that a declared tool takes beside its text, about."""


class Offering:
    """Remembers what it made of a declaration: the same one costs a hash and a lookup."""

    def __init__(self) -> None:
        self._known: Lately[Hashable, Offer] = Lately(_REMEMBERED, _MEMORY)

    def look(self, exchange: Exchange, rules: Rules | None) -> None:
        """Puts the request's offer on the exchange, as far as it doesn't depend on the run.

        Raises `ProxyError(policy_denied)` where it forces a tool that is not offered, or can't be stripped.
        """
        exchange.offer = found = self._found(exchange, rules)
        if found is not None and found.refusal:
            raise refusal(found)

    def _found(self, exchange: Exchange, rules: Rules | None) -> Offer | None:
        tools = permitted(exchange)
        request, dialect = exchange.whole or exchange.request, exchange.dialect
        assert request is not None
        if dialect.declares is None or (rules is None and tools.every):
            return None
        digest, size = _digest(request, dialect)
        if not digest:
            return None
        assert exchange.caller is not None
        role = exchange.caller.agent.role
        policy = rules.sha256 if rules else ""
        key = (dialect.name, digest, policy, role, tuple(tools.agent), tuple(tools.envelopes))
        known = self._known.get(key)
        if known is None:
            offers = Offers(rules.engine.policy if rules else None, role, tools)
            known = _offer(request, dialect, offers, rules)
            self._known.keep(key, known, size + _EACH * len(known.declarations.tools))
        return known


def judge_hosted(
    exchange: Exchange, found: Offer, rules: Rules, state: RunState, now_us: int, env: str
) -> Offer:
    """The offer, with what the provider runs judged as the run stands."""
    caller = exchange.caller
    assert caller is not None
    tools = [(n, hosted) for n in found.pending for hosted in found.declarations.tools[n].hosted]
    offers = Offers(rules.engine.policy, caller.agent.role, permitted(exchange))
    facts = Facts(exchange, state, now_us, env, lambda: user_text(exchange), {}, {})
    answers = served(rules.engine, [_served(one) for _, one in tools], facts.context(), offers)
    reasons: dict[int, Reason] = {}
    for (n, _), reason in zip(tools, answers, strict=True):
        if reason is not None:
            reasons.setdefault(n, reason)
    return found.judged(reasons) if reasons else found


def refusal(found: Offer) -> ProxyError:
    return ProxyError(Kind.POLICY_DENIED, found.refusal, retryable=False)


def user_text(exchange: Exchange) -> str:
    """What the user wrote, in the messages of this request."""
    request, dialect = exchange.request, exchange.dialect
    assert request is not None
    return "\n".join(dialect.message_facts(bytes(raw)).user_text for raw in request.messages)


def _offer(request: WireRequest, dialect: Dialect, offers: Offers, rules: Rules | None) -> Offer:
    assert dialect.declares is not None
    declarations = dialect.declares.read(request)
    reasons = [_reason(tool, offers, judged=rules is not None) for tool in declarations.tools]
    shadow = rules is not None and rules.mode is Mode.SHADOW
    passes = rules is not None and rules.engine.policy.file.declare is Declare.PASS
    return offer(declarations, reasons, shadow=shadow, passes=passes)


def _reason(tool: Declared, offers: Offers, *, judged: bool) -> Reason | None:
    """Why a tool is never offered. What the provider runs is `judged` by itself where there are rules."""
    names = tool.names if judged else (*tool.names, *(hosted.name for hosted in tool.hosted))
    found = [reason for name in names if (reason := offers.never(name)) is not None]
    if tool.family:
        found += [reason] if (reason := offers.family(tool.family)) else []
    return found[0] if found else None


def _served(hosted: Hosted) -> Served:
    text = hosted.arguments.decode("utf-8", "replace")
    return Served(hosted.name, text, hosted.prefix, hosted.free)


def _digest(request: WireRequest, dialect: Dialect) -> tuple[bytes, int]:
    """A hash of everything in the request that declares a tool, and its bytes; empty where nothing does."""
    assert dialect.declares is not None
    parts = [
        (key.encode(), request.body[slice(*at)])
        for key, at in request.spans.items()
        if key in dialect.declares.keys
    ]
    parts += [(b"%d" % place, raw) for place, raw in dialect.declares.items(request)]
    if not parts:
        return b"", 0
    digest = hashlib.sha256()
    for name, value in parts:
        digest.update(b"%b:%d:" % (name, len(value)))
        digest.update(value)
    return digest.digest(), sum(len(value) for _, value in parts)
