"""Routes over a few targets, of every strategy, for the tests of many calls at once."""

from __future__ import annotations

from hypothesis import strategies as st

from routing.health import BreakerSettings
from routing.strategies import STRATEGIES
from routing.targets import NO_LIMITS, Facts, Hedge, Limits, Route, RouteTable, Target, Timeouts

NAMES = ("m0", "m1", "m2")
IDS = "abcd"
KEYS = {"a": 3, "b": 1, "c": 2, "d": 1}
LIMITS = {
    "a": Limits(concurrency=4),
    "b": NO_LIMITS,
    "c": Limits(rpm=12, concurrency=3),
    "d": Limits(concurrency=2, tpm=2_000),
}
LANES = [lane for id_ in IDS for lane in Target(id_, "p", "m", api_keys=KEYS[id_]).lanes]
BREAKER_KEYS = [*dict.fromkeys([*IDS, *LANES])]
WINDOWS = {"small": 100, "large": 1_000}
COOL_DOWN_S, LONGEST_S, PROBE_S = 5.0, 3600.0, 60.0


@st.composite
def tables(draw: st.DrawFn, threshold: int) -> RouteTable:
    def route(name: str) -> Route:
        ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True))
        names = st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)
        targets = (
            Target(
                i,
                "p",
                draw(st.sampled_from(["small", "large", "*"])),
                weight=draw(st.sampled_from([1, 3])),
                api_keys=KEYS[i],
                limits=LIMITS[i],
            )
            for i in ids
        )
        return Route(
            name,
            tuple(targets),
            strategy=draw(st.sampled_from(sorted(STRATEGIES))),
            affinity=draw(st.booleans()),
            fallbacks=draw(names),
            context_fallbacks=draw(names),
            content_fallbacks=draw(names),
            retries=draw(st.integers(0, 3)),
            timeouts=Timeouts(total_s=draw(st.sampled_from([300.0, 60.0, 5.0]))),
            breaker=BreakerSettings(threshold=threshold, cool_down_s=COOL_DOWN_S, max_open_s=LONGEST_S),
            hedge=draw(st.sampled_from([Hedge(0.5), Hedge(), None])),
        )

    return RouteTable([route(name) for name in NAMES], lambda _, model: Facts(WINDOWS.get(model)))
