"""Drives a plan as a playbook says: where it must go, what came of it, where it must go next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from routing.bounds import DEFAULT_BOUNDS, Bounds
from routing.failures import FailureKind
from routing.fleet import ANY, Demand, Fleet
from routing.health import BreakerSettings
from routing.plan import Exhausted, Failed, Outcome, Plan, Stop, Try
from routing.targets import NO_LIMITS, Facts, Hedge, Limits, Route, RouteTable, Target, Timeouts

LENIENT = BreakerSettings(threshold=10)


class Playbook:
    """A plan on a clock of its own: every wait is taken, every outcome costs no time.

    Several on one `fleet` are several calls. `windows`: what some models take, in tokens.
    """

    def __init__(
        self,
        *routes: Route,
        fleet: Fleet | None = None,
        deadline: float | None = None,
        bounds: Bounds = DEFAULT_BOUNDS,
        chance: Callable[[], float] = lambda: 0.0,
        demand: Demand = ANY,
        now: float = 0.0,
        windows: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        table = RouteTable(routes, lambda provider, model: Facts(windows.get(model)))
        resolved = table.resolve(routes[0].name)
        assert resolved is not None
        self.now = now
        self.fleet = fleet or Fleet()
        self.plan = Plan(
            resolved.chain,
            self.fleet,
            now=now,
            random=chance,
            demand=demand,
            deadline=deadline,
            bounds=bounds,
        )
        self.waits: list[float] = []
        self.step: Try

    def goes_to(self, target: str, api_key: int = 0) -> Playbook:
        step = self.plan.next(self.now)
        assert isinstance(step, Try), step
        assert (step.target.id, step.api_key) == (target, api_key)
        self.now += step.delay_s
        self.waits.append(step.delay_s)
        self.step = step
        return self

    def hedges_to(self, target: str) -> Try:
        step = self.plan.hedge(self.now)
        assert step is not None
        assert step.target.id == target
        return step

    def ends(self, stop: Stop) -> Exhausted:
        step = self.plan.next(self.now)
        assert isinstance(step, Exhausted), step
        assert step.stop is stop
        return step

    def which(self, outcome: Outcome | FailureKind, step: Try | None = None) -> Playbook:
        """What came of the last try, or of this one."""
        told = Failed(outcome) if isinstance(outcome, FailureKind) else outcome
        self.plan.report(step or self.step, told, self.now)
        return self


def target(
    id_: str, limits: Limits = NO_LIMITS, *, model: str = "m", api_keys: int = 1, weight: float = 1
) -> Target:
    return Target(id_, "openai", model, weight=weight, api_keys=api_keys, limits=limits)


def route(
    name: str,
    *targets: str | Target,
    strategy: str = "ordered",
    affinity: bool = True,
    retries: int = 0,
    fallbacks: tuple[str, ...] = (),
    context_fallbacks: tuple[str, ...] = (),
    content_fallbacks: tuple[str, ...] = (),
    total_s: float = 600,
    breaker: BreakerSettings = LENIENT,
    hedge: Hedge | None = None,
) -> Route:
    """A route to these targets, plain ones where only their ids are given."""
    return Route(
        name,
        tuple(target(t) if isinstance(t, str) else t for t in targets),
        strategy=strategy,
        affinity=affinity,
        fallbacks=fallbacks,
        context_fallbacks=context_fallbacks,
        content_fallbacks=content_fallbacks,
        retries=retries,
        timeouts=Timeouts(total_s=total_s),
        breaker=breaker,
        hedge=hedge,
    )
