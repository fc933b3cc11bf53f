"""Keeps the policy in force the one in its file: a changed file is loaded between calls, if it checks out.

Each worker looks for itself. What it finds is on its record before it judges anything.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

from llm_proxy.config.choices import Event
from llm_proxy.errors import ProxyError
from llm_proxy.judge import Rules
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.load import PolicyErrors
from llm_proxy.reactions.events import Announcer
from llm_proxy.records import bodies
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.services import Services
from llm_proxy.telemetry.policy import PolicyState
from llm_proxy.yamlpos import Issue, load_yaml

log = structlog.get_logger("llm_proxy.policy")

EVERY_S = 0.5
"""Between two looks at the file. A change must look the same twice, since editors write in several steps."""
PATIENCE_S = 2.0
"""How long a file that can't be used may stay so before it's called broken."""
MAX_TOLD = 2_000
"""Characters of what is wrong with a file, in records and logs."""


class PolicyWatch:
    """One per worker with a policy. `load` reads the file as at start-up and raises PolicyErrors."""

    def __init__(
        self,
        services: Services,
        rules: Rules,
        path: Path,
        load: Callable[[], Rules | None],
        announcer: Announcer,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._services = services
        self._rules = rules
        self._path = path
        self._load = load
        self._announcer = announcer
        self._clock = clock
        self._seen = rules.sha256
        self._since = clock()
        self._refused: str | None = None
        self._silent = False
        self.loaded_us = services.now_us()
        """When the policy in force came into force here."""
        self.problem = ""
        """What is wrong with the file as it is now, for operators; empty where it's the policy in force."""

    def state(self) -> PolicyState:
        """What metrics tell of it."""
        return PolicyState(self._rules.sha256, self._rules.mode.value)

    async def begin(self) -> None:
        """Puts on record what is in force from the start. Raises `ProxyError(store_unavailable)`."""
        failing = await asyncio.to_thread(_failing, self._rules, self._path)
        for issue in failing:
            log.warning("a test of the policy file fails", issue=str(issue))
        await self._record(_told(self._path, self._rules), changed=False)

    async def run(self) -> None:
        """Runs for as long as the worker does. While the store is down, what was in force stays so."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.step()
                self._silent = False
            except ProxyError as error:
                if not self._silent:
                    log.warning("a changed policy file waits for the store", error=error.kind.value)
                self._silent = True

    async def step(self) -> None:
        """One look at the file. Raises `ProxyError(store_unavailable)`, and then nothing has changed."""
        found = await asyncio.to_thread(_sha256, self._path)
        if found == self._rules.sha256:
            self._seen, self._refused, self.problem = found, None, ""
        elif found != self._seen:
            self._seen, self._since = found, self._clock()
        elif found != self._refused:
            await self._consider(found)

    async def _consider(self, found: str) -> None:
        loaded = await asyncio.to_thread(self._checked)
        if isinstance(loaded, Rules):
            if loaded.sha256 == found:  # else it changed meanwhile, and the next look will tell
                await self._adopt(loaded)
        elif self._clock() - self._since >= PATIENCE_S:
            await self._refuse(found, loaded)

    def _checked(self) -> Rules | tuple[Issue, ...]:
        """The file's policy, or every reason why it isn't taken: tests of its own that fail are one."""
        try:
            rules = self._load()
            assert rules is not None, "the config names a policy"
            failing = _failing(rules, self._path)
        except PolicyErrors as error:
            return error.issues
        except Exception as error:  # noqa: BLE001 (no file, whatever is in it, may end the worker)
            return (Issue(str(self._path), 1, 1, "", f"loading it failed with {type(error).__name__}"),)
        return failing or rules

    async def _adopt(self, rules: Rules) -> None:
        await self._record(_told(self._path, rules, before=self._rules.sha256), changed=True)
        self._services.rules = self._rules = rules
        self._refused, self.problem, self.loaded_us = None, "", self._services.now_us()
        log.info("a changed policy file is in force", file=self._path.name, sha256=rules.sha256)

    async def _refuse(self, found: str, issues: tuple[Issue, ...]) -> None:
        told = "\n".join(map(str, issues))[:MAX_TOLD]
        body = bodies.PolicyLoaded(
            file=self._path.name, sha256=found, error=told, before=self._rules.sha256, in_force=False
        )
        await self._record(body, changed=True)
        self._refused, self.problem = found, told
        self._services.metrics.policy_refused()
        log.error("the policy file can't be used; the one before stays in force", issues=told.splitlines())

    async def _record(self, body: bodies.PolicyLoaded, *, changed: bool) -> None:
        now = self._services.now_us()
        data = {field: getattr(body, field) for field in body.__struct_fields__}
        deliveries = self._announcer.deliveries(Event.POLICY_CHANGED, data, now) if changed else ()
        draft = Draft(RecordKind.POLICY_LOADED, now, None, None, None, bodies.encode(body))
        wrote = Wrote(None, Evidence(records=(draft,), deliveries=deliveries))

        def then(_found: Found) -> Wrote:
            return wrote

        await self._services.writer.submit(Job(then))


def _told(path: Path, rules: Rules, before: str = "") -> bodies.PolicyLoaded:
    header = rules.engine.policy.file.policy
    return bodies.PolicyLoaded(
        file=path.name,
        sha256=rules.sha256,
        id=header.id,
        version=str(header.version),
        mode=rules.mode.value,
        before=before,
    )


def _sha256(path: Path) -> str:
    """Of the file's bytes, hex; empty where it can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError:
        return ""


def _failing(rules: Rules, path: Path) -> tuple[Issue, ...]:
    """The file's own tests that fail, with their places."""
    policy = rules.engine.policy
    results = enumerate(run_cases(policy).results)
    failed = [(n, result) for n, result in results if not result.passed]
    if not failed:
        return ()
    document = load_yaml(path.read_bytes(), str(path))
    return tuple(
        document.issue(("tests", n), f"test {found.name!r} expects {found.expected}, and gets {found.got}")
        for n, found in failed
    )
