"""Targets, routes, and the table that turns a model's name into the chain of targets that may answer it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

AS_ASKED = "*"
"""As a target's `model`: send the name that was asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """One deployment that can answer. `model` is the name which it knows the model by.

    `key` is what its breaker, and its host's settings (URL, API key), go by: the id, unless the host gives
    targets of the same id in different routes keys of their own.
    """

    id: str
    provider: str
    model: str
    weight: float = 1
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.id)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total_s` bounds the whole call, every try and every wait included."""

    connect_s: float = 5.0
    first_event_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Route:
    """What stands behind one model name, or behind a glob of names.

    `retries` is per target: how often it is asked again. `fallbacks` are other routes' names, in order.
    """

    name: str
    targets: tuple[Target, ...]
    strategy: str = "ordered"
    fallbacks: tuple[str, ...] = ()
    retries: int = 2
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class Leg:
    """One route of a chain, made ready: no target of it stands in an earlier leg, none is left at `*`."""

    route: Route
    model: str
    """The name by which this leg was reached: as asked for, or as a fallback names it."""
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model name's route, and the chain to try: the route itself, then its fallbacks, each once."""

    route: Route
    model: str
    chain: tuple[Leg, ...]

    def targets(self) -> Iterator[Target]:
        """Every target of the chain, in the order written."""
        for leg in self.chain:
            yield from leg.targets


class RouteTable:
    """Routes by name. Immutable once built; raises ValueError for what could never be routed.

    A strategy's name is not looked up here: check it with `routing.strategies.strategy_named`.
    """

    __slots__ = ("_exact", "_globs", "_routes")

    def __init__(self, routes: Iterable[Route]) -> None:
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

    def names(self) -> tuple[str, ...]:
        """Every route's name, as written; globs too."""
        return tuple(self._routes)

    def resolve(self, model: str) -> Resolved | None:
        """The chain for a name: a literal match first, then the glob with the most literal characters."""
        resolved = self._exact.get(model)
        if resolved is not None:
            return resolved
        route = self._find(model)
        return None if route is None else self._resolve(model, route)

    def _find(self, model: str) -> Route | None:
        route = self._routes.get(model)
        if route is not None:
            return route
        return next((r for pattern, r in self._globs if pattern.fullmatch(model)), None)

    def _check_fallbacks(self) -> None:
        for route in self._routes.values():
            for name in route.fallbacks:
                if self._find(name) is None:
                    raise ValueError(
                        f"model {route.name!r}: fallback {name!r} is no model of this table; "
                        "define it or remove it"
                    )

    def _resolve(self, model: str, route: Route) -> Resolved:
        # Breadth first: what the asked model's own list says goes before what its fallbacks' lists say.
        reached = {model: route}
        for found in (queue := [route]):
            for name in found.fallbacks:
                fallback = self._find(name)
                if name not in reached and fallback is not None:
                    reached[name] = fallback
                    queue.append(fallback)
        seen: set[tuple[str, str]] = set()
        legs = (self._leg(name, found, seen) for name, found in reached.items())
        return Resolved(route, model, tuple(leg for leg in legs if leg.targets))

    def _leg(self, model: str, route: Route, seen: set[tuple[str, str]]) -> Leg:
        targets: list[Target] = []
        for target in route.targets:
            ready = replace(target, model=model) if target.model == AS_ASKED else target
            if (ready.key, ready.model) not in seen:
                seen.add((ready.key, ready.model))
                targets.append(ready)
        return Leg(route, model, tuple(targets))


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
