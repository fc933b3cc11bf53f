"""Targets, routes, and the table that turns a model's name into the chain of targets that may answer it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from routing.health import DEFAULT_BREAKER, BreakerSettings

AS_ASKED = "*"
"""As a target's `model`: send the name that was asked for."""
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target takes at most: requests and tokens per minute, and calls at once. None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model: the longest prompt it takes in tokens, and its price.

    `cost` is micro-dollars per million tokens, three of input to one of output.
    """

    window: int | None = None
    cost: int | None = None


_UNKNOWN = Facts()


@dataclass(frozen=True, slots=True)
class Target:
    """One deployment that can answer. `model` is the name which it knows the model by.

    `key` is what its breaker, and its host's settings (URL, API key), go by: the id, unless the host gives
    targets of the same id in different routes keys of their own. `lanes` are the keys of the breakers of
    its several API keys; a target with one API key has its own key as its only lane.
    """

    id: str
    provider: str
    model: str
    weight: float = 1
    key: str = ""
    api_keys: int = 1
    limits: Limits = NO_LIMITS
    facts: Facts = _UNKNOWN
    lanes: tuple[str, ...] = field(init=False)
    seed: int = field(init=False, repr=False)
    """Of the numbers that decide for a run (`strategies.Weighted`)."""

    def __post_init__(self) -> None:
        key = self.key or self.id
        lanes = (key,) if self.api_keys <= 1 else tuple(f"{key}#{n + 1}" for n in range(self.api_keys))
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "lanes", lanes)
        object.__setattr__(self, "seed", int.from_bytes(blake2b(key.encode(), digest_size=8).digest()))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total_s` bounds the whole call, every try and every wait included."""

    connect_s: float = 5.0
    first_event_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a second target is started beside a silent first one: after fixed seconds, None is its own p95."""

    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What stands behind one model name, or behind a glob of names.

    `retries` is per target: how often it is asked again. `fallbacks` are other routes' names, in order;
    `context_fallbacks` and `content_fallbacks` those asked where a prompt is too long, or is filtered.
    """

    name: str
    targets: tuple[Target, ...]
    strategy: str = "ordered"
    affinity: bool = True
    fallbacks: tuple[str, ...] = ()
    context_fallbacks: tuple[str, ...] = ()
    content_fallbacks: tuple[str, ...] = ()
    retries: int = 2
    timeouts: Timeouts = Timeouts()
    breaker: BreakerSettings = DEFAULT_BREAKER
    hedge: Hedge | None = None
    continues: bool = False
    """A stream that is cut goes on at the next target."""
    drains: bool = False
    """A reply whose caller left is read to its end."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One route of a chain, made ready: no target of it stands in an earlier leg, none is left at `*`."""

    route: Route
    model: str
    """The name by which this leg was reached: as asked for, or as a fallback names it."""
    targets: tuple[Target, ...]
    larger: tuple[Leg, ...] = ()
    """Where to go with a prompt that is too long for this leg."""
    other: tuple[Leg, ...] = ()
    """Where to go with a request that this leg's vendor filters."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model name's route, and the chain to try: the route itself, then its fallbacks, each once."""

    route: Route
    model: str
    chain: tuple[Leg, ...]
    counts_from: int | None = None
    """The bytes of a body from which its tokens decide where it goes; None where they never do."""
    _targets: tuple[Target, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[tuple[str, str], Target] = {}
        for leg in self.legs():
            for target in leg.targets:
                found.setdefault((target.key, target.model), target)
        object.__setattr__(self, "_targets", tuple(found.values()))

    def legs(self) -> Iterator[Leg]:
        """The chain, then everywhere that it may turn off to."""
        yield from self.chain
        for leg in self.chain:
            yield from leg.larger
            yield from leg.other

    def targets(self) -> tuple[Target, ...]:
        """Every target that may be asked, the chain's first, in the order written; each once."""
        return self._targets

    def only(self, wanted: Callable[[Target], bool]) -> Resolved:
        """Without the targets that aren't wanted, and the legs that have none left."""
        return replace(self, chain=_kept(self.chain, wanted))


def _kept(legs: tuple[Leg, ...], wanted: Callable[[Target], bool]) -> tuple[Leg, ...]:
    left = (
        replace(
            leg,
            targets=tuple(filter(wanted, leg.targets)),
            larger=_kept(leg.larger, wanted),
            other=_kept(leg.other, wanted),
        )
        for leg in legs
    )
    return tuple(leg for leg in left if leg.targets)


class RouteTable:
    """Routes by name. Immutable once built; raises ValueError for what could never be routed.

    A strategy's name is not looked up here: check it with `routing.strategies.strategy_named`. `facts` tells
    of a (provider, model) what is known of it.
    """

    __slots__ = ("_exact", "_facts", "_globbed", "_globs", "_routes")

    def __init__(
        self, routes: Iterable[Route], facts: Callable[[str, str], Facts] = lambda provider, model: _UNKNOWN
    ) -> None:
        self._facts = facts
        self._routes: dict[str, Route] = {}
        for route in routes:
            if route.name in self._routes:
                raise ValueError(f"model {route.name!r}: two routes have this name; keep one")
            _check(route)
            self._routes[route.name] = route
        globs = sorted((n for n in self._routes if "*" in n), key=_literal_length, reverse=True)
        self._globs = tuple((_compile(name), self._routes[name]) for name in globs)
        self._check_fallbacks()
        self._exact = {name: self._resolve(name, route) for name, route in self._routes.items()}
        self._globbed: dict[str, Resolved] = {}

    def names(self) -> tuple[str, ...]:
        """Every route's name, as written; globs too."""
        return tuple(self._routes)

    def routes(self) -> tuple[Route, ...]:
        """Every route, as written."""
        return tuple(self._routes.values())

    def resolve(self, model: str) -> Resolved | None:
        """The chain for a name: a literal match first, then the glob with the most literal characters."""
        resolved = self._exact.get(model) or self._globbed.get(model)
        if resolved is not None:
            return resolved
        route = self._find(model)
        if route is None:
            return None
        if len(self._globbed) >= _REMEMBERED:  # callers choose these names
            self._globbed.clear()
        resolved = self._globbed[model] = self._resolve(model, route)
        return resolved

    def _find(self, model: str) -> Route | None:
        route = self._routes.get(model)
        if route is not None:
            return route
        return next((r for pattern, r in self._globs if pattern.fullmatch(model)), None)

    def _check_fallbacks(self) -> None:
        for route in self._routes.values():
            for name in (*route.fallbacks, *route.context_fallbacks, *route.content_fallbacks):
                if self._find(name) is None:
                    raise ValueError(
                        f"model {route.name!r}: fallback {name!r} is no model of this table; "
                        "define it or remove it"
                    )

    def _resolve(self, model: str, route: Route) -> Resolved:
        chain = self._legs(model, route, lambda found: found.fallbacks)
        ready = (
            replace(
                leg,
                larger=self._legs(leg.model, leg.route, lambda found: found.context_fallbacks)[1:],
                other=self._legs(leg.model, leg.route, lambda found: found.content_fallbacks)[1:],
            )
            for leg in chain
        )
        legs = tuple(leg for leg in ready if leg.targets)
        return Resolved(route, model, legs, _counts_from(legs))

    def _legs(self, model: str, route: Route, onward: Callable[[Route], tuple[str, ...]]) -> tuple[Leg, ...]:
        """The route itself, then all that is reached from it by `onward`, each once."""
        # Breadth first: what the asked model's own list says goes before what its fallbacks' lists say.
        reached = {model: route}
        for found in (queue := [route]):
            for name in onward(found):
                fallback = self._find(name)
                if name not in reached and fallback is not None:
                    reached[name] = fallback
                    queue.append(fallback)
        seen: set[tuple[str, str]] = set()
        return tuple([self._leg(name, found, seen) for name, found in reached.items()])

    def _leg(self, model: str, route: Route, seen: set[tuple[str, str]]) -> Leg:
        targets: list[Target] = []
        for target in route.targets:
            sent = model if target.model == AS_ASKED else target.model
            if (target.key, sent) not in seen:
                seen.add((target.key, sent))
                targets.append(replace(target, model=sent, facts=self._facts(target.provider, sent)))
        return Leg(route, model, tuple(targets))


def _counts_from(chain: tuple[Leg, ...]) -> int | None:
    """A token is a byte at least, so a body of fewer bytes than the smallest window fits uncounted."""
    targets = [target for leg in chain for target in leg.targets]
    if any(target.limits.tpm is not None for target in targets):
        return 0
    if not any(leg.larger for leg in chain):
        return None
    return min((t.facts.window for t in targets if t.facts.window is not None), default=None)


def _check(route: Route) -> None:
    if not route.targets:
        raise ValueError(f"model {route.name!r}: it has no targets; give it at least one")
    ids = [target.id for target in route.targets]
    twice = next((i for i in ids if ids.count(i) > 1), None)
    if twice is not None:
        raise ValueError(f"model {route.name!r}: two targets have the id {twice!r}; rename one")
    if route.retries < 0:
        raise ValueError(f"model {route.name!r}: retries is {route.retries}; use 0 or more")


def _compile(name: str) -> re.Pattern[str]:
    """Only `*` and `?` are wild: a model's name may hold `[`, which fnmatch would take for a class."""
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(c) or re.escape(c) for c in name), re.DOTALL)


def _literal_length(name: str) -> int:
    return sum(c not in "*?" for c in name)
