"""`/console/policy`: the registry, what each rule did over time, and what another policy would have said."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin import policy, policy_shown
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.policy_paths import MAX_POLICY, MAX_SECONDS
from llm_proxy.admin.reconciling import one_moment
from llm_proxy.console import plots
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Refused, Visit
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import PolicyErrors, read_policy
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

PATH = "/console/policy"
_SINCE = "7d"
_CHANGES = 100


class PolicyPages:
    def __init__(self, worker: Worker) -> None:
        self._store = Store(worker)
        self._reads = ContentReads(worker)
        self._one = asyncio.Lock()

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.show, READERS)
        add("GET", PATH + "/simulate", self.ask, CONTENT_READERS)
        add("POST", PATH + "/simulate", self.simulate, CONTENT_READERS)

    async def show(self, visit: Visit) -> Response:
        found = self._in_force()
        may_try = bool(visit.operator.roles & CONTENT_READERS)
        if found is None:
            return visit.page("policy_none.html", PATH)
        since = visit.asked("since") or _SINCE
        shown = await asyncio.to_thread(self._shown, found, since)
        told: dict[str, Any] = {
            "policy": shown,
            "since": since,
            "tools": found.file.tools,
            "may_try": may_try,
        }
        return visit.page("policy.html", PATH, plot=_plot(shown), **told)

    async def ask(self, visit: Visit) -> Response:
        return visit.page("simulate.html", PATH, found=None, asked=_asked({}), problems=())

    async def simulate(self, visit: Visit) -> Response:
        """Stops after a minute, and says so; one at a time in each worker."""
        asked = _asked(visit.form)
        text = asked["policy"].encode()
        if len(text) > MAX_POLICY:
            raise Refused(413, "It wasn't tried", f"The policy is over {MAX_POLICY} bytes.")
        try:
            tried = read_policy(text, "policy.yaml")
        except PolicyErrors as errors:
            problems = [str(issue) for issue in errors.issues]
            return visit.page("simulate.html", PATH, found=None, asked=asked, problems=problems)
        if self._one.locked():
            raise Refused(409, "Not just now", "A simulation is under way here: try again after it.")
        async with self._one:
            found = await asyncio.to_thread(self._simulated, tried, asked)
        calls = list(dict.fromkeys([change.call_id for change in found.changes]))
        await self._reads.note(visit.operator.id, Place.CONSOLE, "policy simulate", Seen(None, calls))
        return visit.page("simulate.html", PATH, found=found, asked=asked, problems=())

    def _in_force(self) -> Policy | None:
        rules = self._store.worker.services.rules
        return rules.engine.policy if rules is not None else None

    def _shown(self, found: Policy, since: str) -> policy_shown.PolicyShown:
        watch, path = self._store.worker.policy, self._store.config.policy
        loaded = policy_shown.Loaded(watch.loaded_us, watch.problem) if watch else policy_shown.Loaded()
        with one_moment(self._store.worker.engine) as connection:
            name = path.name if path else ""
            return policy_shown.policy_shown(connection, found, name, since, self._store.now_us(), loaded)

    def _simulated(self, tried: Policy, asked: dict[str, str]) -> policy.Simulated:
        wish = policy.SimulationWish(
            since=asked["since"] or None,
            agent=asked["agent"] or None,
            run=asked["run"] or None,
            limit=_CHANGES,
            seconds=MAX_SECONDS,
        )

        def compared(connection: Connection) -> policy.Simulated:
            return policy.simulate(connection, self._store.config, tried, wish, self._store.now_us())

        with one_moment(self._store.worker.engine) as connection:
            return compared(connection)


def _asked(form: dict[str, str]) -> dict[str, str]:
    asked = {name: form.get(name, "").strip() for name in ("since", "agent", "run")}
    return asked | {"since": asked["since"] or _SINCE, "policy": form.get("policy", "").replace("\r\n", "\n")}


def _plot(shown: policy_shown.PolicyShown) -> str:
    """Hits of each rule by day; empty where there are none."""
    spans = [(rule.rule, span) for rule in shown.rules for span in rule.over_time]
    if not spans:
        return ""
    try:
        days = plots.days_between(shown.since_us, shown.until_us)
    except (OverflowError, ValueError):
        raise Unclear("since: that is too long ago.") from None
    values = [
        (plots.days_between(span.from_us, span.from_us + 1)[0], rule, span.hits) for rule, span in spans
    ]
    return plots.stacked(days, values, "hits")
