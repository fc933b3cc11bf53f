"""What operators ask of the targets: how each is doing, and where a call would go and why."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.admin.together import Opened, Together
from llm_proxy.archive.fleet import LastTarget, breaker_rows, last_target, target_rows
from routing.explain import Prospect, Standing, prospects, soonest
from routing.fleet import Demand, Fleet
from routing.health import Breaker
from routing.targets import Leg, Resolved, RouteTable, Target


class BreakerLine(msgspec.Struct, frozen=True, kw_only=True):
    """The breaker of a target, or of one of its API keys. The rest is empty where it is closed."""

    state: Breaker
    open_until_us: int | None = None
    open_until_at: str | None = None
    open_for_s: float | None = None
    """From now on; 0 where it is half open."""
    after: str = ""
    """The failure for which it opened."""


class TargetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One target. Its breaker is told as in a `BreakerLine`, and is open too while all its API keys rest.

    Requests and tokens are those of the last minute; attempts and failures count since the processes began
    that sent something within the last day. Limits are None where there are none, latencies where they
    aren't known.
    """

    target: str
    model: str
    """The name under which agents ask for it."""
    provider: str
    sent_model: str
    """The name by which the target knows it; `*` is what was asked for."""
    state: Breaker
    open_until_us: int | None
    open_until_at: str | None
    open_for_s: float | None
    after: str
    api_keys: tuple[BreakerLine, ...]
    """Each key's own, where there are several."""
    requests: int
    rpm: int | None
    tokens: int
    tpm: int | None
    in_flight: int
    concurrency: int | None
    whole_s: float | None
    streamed_s: float | None
    """Mean time to the first event: of a whole reply that is all of it."""
    attempts: int
    failures: int
    last_failure: str
    last_failure_us: int | None
    last_failure_at: str | None


class ProspectLine(msgspec.Struct, frozen=True, kw_only=True):
    """A target as the call would find it. `turn` counts those that would be asked, from 1."""

    turn: int | None
    target: str
    model: str
    provider: str
    sent_model: str
    standing: Standing
    why: str
    wait_s: float | None
    """Until one that is passed over may be asked; None where waiting doesn't help."""


class RouteShown(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call would go, and why. `wait_s`: until a target may be asked, 0 now, None never."""

    model: str
    route: str
    """The name in the config that it met: a glob, perhaps."""
    strategy: str
    affinity: bool
    agent_id: str
    run_id: str
    tokens: int
    counted: bool
    """Whether a prompt's tokens are counted for every caller, or only for those with budgets that need it."""
    stream: bool
    wait_s: float | None
    targets: tuple[ProspectLine, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that might be made. `tokens` of its prompt, 0 where that is open."""

    model: str
    agent: str = ""
    run: str = ""
    tokens: int = 0
    stream: bool = False


def target_lines(
    routes: RouteTable, connection: Connection | None, now_us: int, limit: int, *, model: str | None = None
) -> list[TargetLine]:
    """The config's targets in its order, at most `limit`; with `model`, those that may answer for it.

    Raises `NotFound` for a model that no route serves.
    """
    together = _together(connection, now_us)
    found = _targets_of(routes, model) if model is not None else _all_targets(routes)
    return [_line(name, target, together) for name, target in islice(found, limit)]


def route_shown(routes: RouteTable, connection: Connection | None, now_us: int, asked: Asked) -> RouteShown:
    """Raises `NotFound` for a model that no route serves; `Unclear` for a run that could be anybody's."""
    resolved = _resolve(routes, asked.model)
    asked = replace(asked, agent=_agent(connection, asked))
    fleet = _together(connection, now_us).fleet()
    if connection is not None and asked.run:
        _warm(fleet, resolved, asked, last_target(connection, asked.agent, asked.run, asked.model))
    demand = Demand(f"{asked.agent}/{asked.run}" if asked.run else "", asked.tokens, asked.stream)
    found = prospects(resolved, fleet, demand, now_us / 1e6)
    return RouteShown(
        model=asked.model,
        route=resolved.route.name,
        strategy=resolved.route.strategy,
        affinity=resolved.route.affinity,
        agent_id=asked.agent,
        run_id=asked.run,
        tokens=asked.tokens,
        counted=resolved.counts_from is not None,
        stream=asked.stream,
        wait_s=soonest(found),
        targets=tuple(_numbered(found)),
    )


def _together(connection: Connection | None, now_us: int) -> Together:
    if connection is None:
        return Together((), (), now_us)
    return Together(breaker_rows(connection), target_rows(connection), now_us)


def _resolve(routes: RouteTable, model: str) -> Resolved:
    resolved = routes.resolve(model)
    if resolved is None:
        raise _unknown_model(model, routes.names())
    return resolved


def _unknown_model(model: str, known: Sequence[str]) -> NotFound:
    near = difflib.get_close_matches(model, known, n=3)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        hint = f"known are {', '.join(known[:20])}" if known else "the config has none"
    return NotFound(f"No model {model[:80]!r} is configured: {hint}")


def _all_targets(routes: RouteTable) -> Iterator[tuple[str, Target]]:
    for route in routes.routes():
        yield from ((route.name, target) for target in route.targets)


def _targets_of(routes: RouteTable, model: str) -> Iterator[tuple[str, Target]]:
    seen: set[str] = set()
    for leg in _resolve(routes, model).legs():
        for target in leg.targets:
            if target.key not in seen:
                seen.add(target.key)
                yield leg.route.name, target


def _line(model: str, target: Target, together: Together) -> TargetLine:
    told, limits = together.traffic(target.key), target.limits
    lanes = target.lanes if len(target.lanes) > 1 else ()
    keys = tuple(_breaker(together.opened(lane), together.now_us) for lane in lanes)
    own = _overall(_breaker(together.opened(target.key), together.now_us), keys)
    return TargetLine(
        target=target.id,
        model=model,
        provider=target.provider,
        sent_model=target.model,
        **msgspec.structs.asdict(own),
        api_keys=keys,
        requests=round(told.now.requests),
        rpm=limits.rpm,
        tokens=round(told.now.tokens),
        tpm=limits.tpm,
        in_flight=told.now.in_flight,
        concurrency=limits.concurrency,
        whole_s=told.whole_us / 1e6 or None,
        streamed_s=told.streamed_us / 1e6 or None,
        attempts=told.attempts,
        failures=told.failures,
        last_failure=told.last_failure,
        last_failure_us=told.last_failure_us or None,
        last_failure_at=maybe_iso(told.last_failure_us or None),
    )


def _breaker(opened: Opened | None, now_us: int) -> BreakerLine:
    if opened is None:
        return BreakerLine(state=Breaker.CLOSED)
    return BreakerLine(
        state=Breaker.OPEN if now_us < opened.until_us else Breaker.HALF_OPEN,
        open_until_us=opened.until_us,
        open_until_at=maybe_iso(opened.until_us),
        open_for_s=max(0, opened.until_us - now_us) / 1e6,
        after=opened.after,
    )


def _overall(own: BreakerLine, keys: Sequence[BreakerLine]) -> BreakerLine:
    """Where every API key rests, the target is open until the first of them is back."""
    if own.state is Breaker.OPEN or not keys or any(key.state is not Breaker.OPEN for key in keys):
        return own
    return min(keys, key=lambda key: key.open_until_us or 0)


def _agent(connection: Connection | None, asked: Asked) -> str:
    """Whose run it is: runs of two agents may have one name."""
    if asked.agent or not asked.run:
        return asked.agent
    if connection is None:
        raise Unclear(f"Run {asked.run!r} is not recorded: name the agent whose run it is to be.")
    return find_run(connection, asked.run, None).agent_id


def _warm(fleet: Fleet, resolved: Resolved, asked: Asked, last: LastTarget | None) -> None:
    """Processes remember by themselves who answered a run; the calls' listing tells the same."""
    if last is None:
        return
    for leg in resolved.chain:
        key = _key_of(leg, last.target)
        if key is not None:
            fleet.affinity.note(f"{asked.agent}/{asked.run}", leg.model, key, last.at_us / 1e6)
            return


def _key_of(leg: Leg, id_: str) -> str | None:
    return next((target.key for target in leg.targets if target.id == id_), None)


def _numbered(found: Iterable[Prospect]) -> Iterator[ProspectLine]:
    turn = 0
    for prospect in found:
        asked = prospect.standing is Standing.ASKED
        turn += asked
        target = prospect.target
        yield ProspectLine(
            turn=turn if asked else None,
            target=target.id,
            model=prospect.model,
            provider=target.provider,
            sent_model=target.model,
            standing=prospect.standing,
            why=prospect.why,
            wait_s=prospect.wait_s,
        )
