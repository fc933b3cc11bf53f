"""What a worker makes of a changed policy file, look by look."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from llm_proxy.errors import ProxyError
from llm_proxy.judge import Rules
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import load_policy
from llm_proxy.reactions.events import Announcer, Webhook
from llm_proxy.records import bodies
from llm_proxy.records.batch import Found, Job
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.runstate import UNKNOWN
from llm_proxy.records.writer import unavailable
from llm_proxy.reloading import EVERY_S, PATIENCE_S, PolicyWatch
from llm_proxy.services import Services
from llm_proxy.telemetry.metrics import Metrics

GOOD = "policy: {id: p, version: 1}\n"
OTHER = "policy: {id: p, version: 2, mode: shadow}\n"
BROKEN = "policy: {id: p, version: 3, mod: shadow}\n"
FAILING = GOOD + (
    "tools: {x: {effect: write, tier: prohibited}}\n"
    "tests: [{name: 'no', call: {tool: x}, expect: {decision: allow}}]\n"
)
HOOKS = Announcer([Webhook("ops", "http://127.0.0.1/", b"secret")])


@dataclass
class Store:
    """What the writer was given. `down`: it takes nothing."""

    down: bool = False
    written: list[Evidence] = field(default_factory=list[Evidence])

    async def submit(self, job: Job) -> None:
        if self.down:
            raise unavailable()
        self.written.append(job.then(Found((), UNKNOWN)).evidence)

    def told(self) -> list[tuple[str, bool]]:
        found = [msgspec.json.decode(w.records[0].body, type=bodies.PolicyLoaded) for w in self.written]
        return [(body.version, body.in_force) for body in found]


@dataclass
class Bench:
    path: Path
    store: Store = field(default_factory=Store)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.path.write_text(GOOD)
        rules = self.load()
        stand_in = SimpleNamespace(
            rules=rules, writer=self.store, now_us=lambda: 1, metrics=Metrics(worker="42")
        )
        self.services = cast("Services", stand_in)
        self.watch = PolicyWatch(self.services, rules, self.path, self.load, HOOKS, lambda: self.now)

    def load(self) -> Rules:
        policy = load_policy(self.path)
        return Rules(PolicyEngine(policy), policy.sha256, policy.file.policy.mode, policy.file.on_deny)

    @property
    def version(self) -> Any:
        assert self.services.rules is not None
        return self.services.rules.engine.policy.file.policy.version

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += EVERY_S
            await self.watch.step()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "policy.yaml")


LOOKS = int(PATIENCE_S / EVERY_S) + 1
"""After so many a file that can't be used is called broken."""


async def test_a_change_is_taken_once_it_looks_the_same_twice(bench: Bench) -> None:
    await bench.watch.begin()
    await bench.look(3)
    bench.path.write_text(OTHER)
    await bench.look()
    assert bench.version == 1
    await bench.look(3)
    assert bench.version == 2
    assert bench.store.told() == [("1", True), ("2", True)]
    assert [len(evidence.deliveries) for evidence in bench.store.written] == [0, 1]
    assert bench.watch.state().mode == "shadow"


async def test_a_file_that_keeps_changing_waits(bench: Bench) -> None:
    for version in range(2, 12):
        bench.path.write_text(f"policy: {{id: p, version: {version}}}\n")
        await bench.look()
    assert (bench.version, bench.store.told()) == (1, [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BROKEN, "policy.yaml:1:29: policy.mod: unknown key: did you mean 'mode'?"),
        (GOOD[:20], "policy.yaml:1:"),
        (FAILING, "policy.yaml:3:9: tests[0]: test 'no' expects allow, and gets deny by prohibited"),
        ("a: [" * 20_000, "policy.yaml:1:"),
        (None, "can't be read"),
    ],
    ids=["a wrong key", "half a file", "its own test fails", "too deep", "gone"],
)
async def test_what_cannot_be_used_is_said_once_and_the_old_one_stays(
    bench: Bench, text: str | None, says: str
) -> None:
    if text is None:
        bench.path.unlink()
    else:
        bench.path.write_text(text)
    await bench.look(LOOKS - 1)
    assert (bench.watch.problem, bench.store.told()) == ("", [])
    await bench.look(5)
    assert (bench.version, bench.store.told()) == (1, [("", False)])
    assert says in bench.watch.problem
    body = json.loads(bench.store.written[0].deliveries[0].body)
    assert (body["type"], says in body["data"]["error"]) == ("policy.changed", True)
    assert b'llm_proxy_policy_reload_failures_total{llm_proxy_worker="42"} 1.0' in (
        bench.services.metrics.render()
    )
    bench.path.write_text(GOOD)
    await bench.look()
    assert bench.watch.problem == ""
    bench.path.write_text(BROKEN)
    await bench.look(LOOKS)
    assert len(bench.store.told()) == 2, "broken again, it is said again"


async def test_nothing_comes_into_force_that_cannot_be_recorded(bench: Bench) -> None:
    bench.path.write_text(OTHER)
    await bench.look()
    bench.store.down = True
    with pytest.raises(ProxyError):
        await bench.look()
    assert bench.version == 1
    bench.store.down = False
    await bench.look()
    assert (bench.version, bench.store.told()) == (2, [("2", True)])
