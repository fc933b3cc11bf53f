"""Admits a call or refuses it: its worst case is held and its opening record committed in one transaction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable
from dataclasses import replace

import msgspec
from msgspec import structs

from budgets import Bound, Held, Hold, LimitBook, OnExceed, Refused, Subject, Unit
from llm_proxy import journal
from llm_proxy.arrivals import inspect, kept_by_vendor
from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.lengths import ReplyLengths
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.judge import Rules
from llm_proxy.measuring import held_tokens
from llm_proxy.offering import judge_hosted
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.price import Price
from llm_proxy.pricing.tiers import asked_tier
from llm_proxy.quote import ONE, Quote, Tries, counts_tokens, quote
from llm_proxy.reactions.alerts import bound_of
from llm_proxy.reactions.refusal import exceeded
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.inherited import NOTHING, Inherited, begun_with, from_both, labelled
from llm_proxy.records.runstate import UNKNOWN, RunKey, RunState
from llm_proxy.records.writer import Writer, unavailable
from llm_proxy.wire.caching import asks_for_an_hour
from routing.targets import Resolved

LEASE_US = 30_000_000
_SHRINKS = 4
_REMEMBERED = 10_000


class Admitted(msgspec.Struct, frozen=True):
    """A call that holds its worst case. `cap` is what it's kept to upstream, where its caller set none."""

    state: RunState | None
    """The run as it stands now; None where it wasn't needed yet."""
    cap: int | None
    rejected: str
    """What the request holds that the posture refuses, empty where there is nothing."""
    tries: Tries = ONE
    """What is held: a second try is made only where it is."""
    begun: Quote | None = None
    """What is held of a call that holds less than its worst case at first."""


class Admission:
    """Holds budgets for calls and opens their records."""

    def __init__(
        self,
        writer: Writer,
        book: LimitBook,
        prices: PriceBook,
        now_us: Callable[[], int],
        *,
        refuse_unpriced: bool,
        errors: TokenErrors | None = None,
        lengths: ReplyLengths | None = None,
        expecting: Container[str] = (),
        environment: str = "",
    ) -> None:
        """`expecting`: the routes whose streams hold at first what `lengths` expects of a reply."""
        self._writer = writer
        self._book = book
        self._prices = prices
        self._now_us = now_us
        self._refuse_unpriced = refuse_unpriced
        self._errors = errors or TokenErrors()
        self._lengths = lengths
        self._expecting = expecting
        self._environment = environment
        self._waived = {
            (limit.id, limit.window.name): replace(limit, on_exceed=OnExceed.WARN)
            for limit in book.limits
            if limit.on_exceed is OnExceed.DOWNGRADE
        }
        self._begun: OrderedDict[tuple[str, str], None] = OrderedDict()

    def bind(self, exchange: Exchange) -> None:
        """Finds the limits that apply."""
        caller, request = exchange.caller, exchange.request
        assert caller is not None
        assert request is not None
        subject = Subject(
            agent=caller.agent.id,
            team=caller.agent.team or None,
            user=exchange.user_id or None,
            key=caller.key_id,
            model=exchange.model,
            run=exchange.run_id,
            tags=exchange.hints.tags,
            user_verified=exchange.user_verified,
            ancestors=exchange.lineage.ancestors,
        )
        bounds = self._book.bounds(subject, self._now_us()) + exchange.lineage.envelopes
        exchange.bounds = tuple([self._counting(bound, exchange) for bound in bounds])

    def _counting(self, bound: Bound, exchange: Exchange) -> Bound:
        """The bound as it is; one that counts without blocking where its limit asks for this very model."""
        limit = bound.limit
        if limit.on_exceed is not OnExceed.DOWNGRADE:
            return bound
        stepped = exchange.downgraded is not None and limit.id in exchange.downgraded.limits
        if not stepped and limit.downgrade != exchange.model:
            return bound
        waived = self._waived.get((limit.id, limit.window.name))
        return bound if waived is None else structs.replace(bound, limit=waived)

    def exceeded(self, refused: Refused, exchange: Exchange) -> ProxyError:
        """The refusal as the caller is told."""
        return exceeded(refused, bound_of(refused, exchange.bounds), self._now_us())

    async def hold(self, exchange: Exchange, route: Resolved, rules: Rules | None) -> Admitted | Refused:
        """Holds the call's worst case and opens its record, or changes nothing where a limit has no room."""
        exchange.refused = None
        if not self._writer.healthy:
            # Recovery tries the store every few seconds; until it's back no caller need wait to be told.
            raise unavailable()
        request = exchange.request
        assert request is not None
        prices = self._priced(route)
        if self._refuse_unpriced and None in prices and exchange.dialect.priced and limits_usd(exchange):
            raise _unpriced(exchange.model)
        tries = _tries(exchange, route, len(prices))
        worst = self._quoted(exchange, route, prices, tries)
        if request.stream and tries == ONE and route.route.name in self._expecting:
            worst = worst.holding(self._expected(exchange, route) or worst.cap)
        for attempt in range(_SHRINKS + 1):
            outcome = await self._writer.submit(self._job(exchange, worst, rules, last=attempt == _SHRINKS))
            match outcome:
                case Admitted():
                    exchange.opened = True
                    self._remember(exchange)
                    return outcome
                case Quote():
                    worst = outcome
                case Refused():
                    exchange.refused = outcome
                    exchange.left = outcome.left
                    return outcome
                case _:
                    raise AssertionError(f"a hold was answered by {type(outcome).__name__}")
        raise AssertionError("the last hold is either taken or refused")

    def worst(self, exchange: Exchange, route: Resolved, tries: Tries = ONE) -> Quote:
        """What asking may cost at most, as the conversation stands now."""
        return self._quoted(exchange, route, self._priced(route), tries)

    def _quoted(
        self, exchange: Exchange, route: Resolved, prices: tuple[Price | None, ...], tries: Tries
    ) -> Quote:
        request, dialect = exchange.request, exchange.dialect
        assert request is not None
        most = request.max_output if dialect.generates else 0
        tokens = held_tokens(exchange, route, self._errors, prices) if dialect.priced else 0
        tier, hour = asked_tier(request), _for_an_hour(exchange, prices)
        return quote(tokens, most, request.n, prices, exchange.units, tries, tier, hour=hour)

    def largest_output(self, provider: str, model: str) -> int | None:
        """The longest reply that a model gives, in tokens, where that's known."""
        price = self._prices.find(provider, model)
        return None if price is None else price.max_output

    def _priced(self, route: Resolved) -> tuple[Price | None, ...]:
        """The prices of every target of `route`, which may have fewer for one call than for another."""
        return tuple([self._prices.find(target.provider, target.model) for target in route.targets()])

    def _expected(self, exchange: Exchange, route: Resolved) -> int | None:
        """How many tokens a reply is expected to have at most; None where nobody knows, or it's no matter."""
        if self._lengths is None or not (exchange.dialect.generates and counts_tokens(exchange.bounds)):
            return None
        return self._lengths.expected([error_key(t.provider, t.model) for t in route.targets()])

    def _remember(self, exchange: Exchange) -> None:
        """The store has the run's row now: the run's next calls need not insert it again."""
        assert exchange.caller is not None
        self._begun[exchange.caller.agent.id, exchange.run_id] = None
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)

    def _job(self, exchange: Exchange, worst: Quote, rules: Rules | None, *, last: bool) -> Job:
        now = self._now_us()
        amount, floor = worst.amount(), worst.floor()
        hold = Hold(exchange.id, exchange.bounds, amount, floor, now + LEASE_US)
        assert exchange.intake is not None
        assert exchange.caller is not None
        redaction = exchange.redaction
        guards = redaction is not None and bool(redaction.fields)
        offer = exchange.offer if exchange.offer is not None and exchange.offer.pending else None
        conversation = None if rules is None else _conversation(exchange)
        wants_run = rules is not None and bool(
            exchange.arrived
            or guards
            or offer
            or request_has_tools(exchange)
            or conversation
            or kept_by_vendor(exchange)
        )
        key = RunKey(exchange.caller.agent.id, exchange.run_id)
        begins = (key.agent_id, key.run_id) not in self._begun

        def then(found: Found) -> Wrote:
            result = found.results[0]
            if isinstance(result, Refused):
                smaller = None if last else _smaller(worst, result, exchange)
                return Wrote(smaller or result)
            assert isinstance(result, Held)
            exchange.held, exchange.floor, exchange.left = amount, floor, result.left
            above, over = found.seen or NOTHING
            before = begun(found.run, exchange, above)
            came = inspect(exchange, before, rules, redaction, now, over)
            exchange.results, exchange.tools_of = tuple(came.views), came.tools
            cap = None if worst.capped or not _shrunk(worst) else worst.cap
            if offer is not None and rules is not None:
                exchange.offer = judge_hosted(exchange, offer, rules, came.state, now, self._environment)
            evidence = begun_with(journal.opened(exchange, begins=begins), above)
            known = came.state if wants_run else None
            admitted = Admitted(known, cap, came.rejected, worst.tries, worst if worst.start else None)
            return Wrote(admitted, came.joined(evidence, before, key))

        look = from_both(parent_of(exchange) if begins else None, conversation)
        return Job(then=then, ops=(hold,), run=key if wants_run else None, look=look)


def _smaller(worst: Quote, refused: Refused, exchange: Exchange) -> Quote | None:
    """The call made to fit; only without its second try where a limit has another model asked instead."""
    bound = bound_of(refused, exchange.bounds)
    if bound is None or bound.limit.on_exceed is not OnExceed.DOWNGRADE:
        return worst.shrunk(refused)
    return structs.replace(worst, tries=ONE) if worst.tries != ONE else None


def request_has_tools(exchange: Exchange) -> bool:
    return exchange.request is not None and bool(exchange.request.tools)


def limits_usd(exchange: Exchange) -> bool:
    return any(Unit.USD in bound.limit.maximum for bound in exchange.bounds)


def _tries(exchange: Exchange, route: Resolved, targets: int) -> Tries:
    """Two at once for a hedged route; another prompt for one that goes on where a target stopped."""
    if targets < 2 or exchange.dialect.raw:
        return ONE
    hedged = any(leg.route.hedge for leg in route.legs())
    goes_on = exchange.continues
    return Tries(1 + hedged + goes_on, 1 + hedged) if hedged or goes_on else ONE


def _for_an_hour(exchange: Exchange, prices: Iterable[Price | None]) -> bool:
    """Whether the prompt may be kept in the cache for an hour at a target where that is the dearest."""
    asked = exchange.whole or exchange.request
    assert asked is not None
    dearer = any(price is not None and price.dearer_by_the_hour for price in prices)
    return dearer and asks_for_an_hour(asked.body)


def _shrunk(worst: Quote) -> bool:
    return worst.cap < max(price.max_output for price in worst.prices)


def begun(state: RunState, exchange: Exchange, above: Inherited) -> RunState:
    """`state`, or that of a run which begins with this call."""
    if state is not UNKNOWN:
        return state
    assert exchange.caller is not None
    first = RunState(started_us=exchange.started_us, role_at_start=exchange.caller.agent.role)
    return labelled(first, above)


def parent_of(exchange: Exchange) -> RunKey | None:
    """The run right above the call's, where it has one that is more than a trace link."""
    above = exchange.lineage.ancestors
    return RunKey(above[0].agent, above[0].run) if above else None


def _conversation(exchange: Exchange) -> RunKey | None:
    """The other run of the agent whose conversation the call goes on with, or fetches a part of."""
    stored = exchange.stored
    if stored is None or exchange.caller is None or stored.run_id in ("", exchange.run_id):
        return None
    return RunKey(exchange.caller.agent.id, stored.run_id)


def _unpriced(model: str) -> ProxyError:
    return ProxyError(
        Kind.BUDGET_EXCEEDED,
        f"Model {model!r} has no known price and a usd limit applies, so its cost can't be held. "
        "Give it a price under `prices:` in the configuration, or set `unpriced: free`.",
        retryable=False,
    )
