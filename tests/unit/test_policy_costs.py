"""No condition that loads takes over 100 ms of CPU, or much memory, whatever stands in the arguments."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import pytest

from llm_proxy.policy.conditions import ConditionError, Conditions
from llm_proxy.policy.costs import pattern_weight

CONDITIONS = Conditions(["public", "secret"])
LIMIT_S = 0.1
NOISE = random.Random(1)
ABAB = "".join(NOISE.choice("ab") for _ in range(64_000))
NUMBERS, WORDS = list(range(1_000)), [f"s{n}" for n in range(1_000)]

REFUSED = {
    "a pattern from the arguments": ("args.s.matches(args.p)", "isn't a constant"),
    "a pattern that is made": ("args.s.matches('a' + 'b')", "isn't a constant"),
    "a class five hundred times": (r"args.s.matches(r'\pL{500}')", "pattern that is too costly"),
    "a group two hundred times": ("args.s.matches('(a|b)*a(a|b){200}c')", "pattern that is too costly"),
    "repeated groups in groups": ("args.s.matches('((a{9}){9}){9}')", "pattern that is too costly"),
    "a long pattern for each item": (
        f"args.l.all(i, i.matches('{'a' * 101}'))",
        "pattern that is too costly",
    ),
    "a pattern in two macros": (
        "args.l.all(i, [2].all(j, i.matches('a')))",
        "matches inside two macros",
    ),
    "texts that double": ("[args.s].map(x, x + x).map(x, x + x).size() > 0", "joins texts or lists"),
    "lists that double": ("args.l.map(x, [x] + [x]).size() > 0", "joins texts or lists"),
    "a chain of maps": ("args.l" + ".map(x, x)" * 3 + ".size() > 0", "more than 2 map or filter"),
    "many filters": (" || ".join(["args.l.filter(x, x > 1).size() > 0"] * 3), "more than 2 map or filter"),
    "the arguments for each item": ("args.l.all(i, !args.s.contains('ab'))", "reads args inside a macro"),
    "all of them for each item": ("args.l.exists(x, (x + 1) in args.l)", "reads args inside a macro"),
    "a needle for each item": (
        "args.l.exists(x, agent.scopes.r.exists(y, x.contains(y)))",
        "a constant there",
    ),
    "seventeen joins": (" == ".join(["+".join(["args.s"] * 10)] * 2), "more than 16 times"),
    "nesting": ("(" * 100 + "true" + ")" * 100, "recursion"),
    "a map in a map": ("args.l.map(x, [1].map(y, y)).size() > 0", "inside another macro"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED)
def test_what_could_cost_too_much_is_refused_at_load(text: str, says: str) -> None:
    with pytest.raises(ConditionError, match=says):
        CONDITIONS.compile(text)


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "every item": ("args.l.all(i, i >= 0)", {"l": NUMBERS}),
    "many macros": (" && ".join(["args.l.all(i, i >= 0)"] * 150), {"l": NUMBERS}),
    "two filters": ("args.l.filter(x, x >= 0).map(x, x).size() > 0", {"l": NUMBERS}),
    "scopes for each item": ("args.l.all(x, !agent.scopes.repos.exists(s, s == x))", {"l": WORDS}),
    "the dearest pattern": ("args.s.matches('(a|b)*a[ab]{230}c')", {"s": ABAB}),
    "classes": (r"args.s.matches(r'^[\pL\pN]+-$')", {"s": "é" * 30_000}),
    "evil for a backtracker": ("args.s.matches('^(([a-z])+.)+[A-Z]([a-z])+$')", {"s": "a" * 60_000}),
    "a pattern for each item": (
        "args.l.all(i, !i.matches('(a|b)*a[ab]{70}c'))",
        {"l": [ABAB[n * 60 : n * 60 + 60] for n in range(1_000)]},
    ),
    "the longest search": ("args.s.contains(args.t)", {"s": "a" * 32_000, "t": "a" * 16_000 + "b"}),
    "sixteen joins": ("size(" + " + ".join(["args.s"] * 17) + ") > 0", {"s": ABAB}),
    "the whole of it twice": ("args == args", {"s": ABAB}),
    "a thousand lists": ("args.l.all(x, x.all(y, y > 0))", {"l": [[1] * 30] * 1_000}),
    "time zones": (
        "args.l.all(i, timestamp('2024-01-01T00:00:00Z').getDayOfYear('America/New_York') >= 0)",
        {"l": NUMBERS},
    ),
    "a literal that is long": ("[" + ",".join(map(str, range(900))) + "].all(x, x >= 0)", {}),
}


@pytest.mark.parametrize(("text", "args"), TAKEN.values(), ids=TAKEN)
def test_what_is_taken_ends_in_time(text: str, args: dict[str, Any]) -> None:
    condition = CONDITIONS.compile(text)
    facts: dict[str, Any] = {"args": args, "agent.scopes": {"repos": WORDS[:9]}}
    took: list[float] = []
    tracemalloc.start()
    for _ in range(3):
        began = time.process_time()
        condition.evaluate(CONDITIONS.activation(facts))
        took.append(time.process_time() - began)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(took) < LIMIT_S
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "text",
    [
        r"args.day.matches(r'^[0-9]{4}-[0-9]{2}-[0-9]{2}$')",
        "args.to.all(x, x.endsWith('@example.com'))",
        "args.to.all(x, x in ['a', 'b'] || x in agent.scopes.repos)",
        "args.first + ' ' + args.last == user.id",
        "args.items.exists(i, i.price * 2 > 100 && i.count + 1 < 5)",
        "args.items.filter(i, i.kind == 'x').size() + 1 > 3",
    ],
)
def test_what_people_write_is_taken(text: str) -> None:
    CONDITIONS.compile(text)


@pytest.mark.parametrize(
    ("pattern", "weight"), [("^abc$", 5), ("[0-9]{4}-[0-9]{2}", 23), ("(ab){10}", 80), (r"\pL{2}", 66)]
)
def test_the_weight_of_a_pattern(pattern: str, weight: int) -> None:
    assert pattern_weight(pattern) == weight
