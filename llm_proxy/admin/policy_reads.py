"""The policy in force as it's shown, and another one tried on what was recorded."""

from __future__ import annotations

from llm_proxy.admin import policy, policy_shown
from llm_proxy.admin.errors import Conflict
from llm_proxy.audit.source import one_moment
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import read_policy
from llm_proxy.worker import Worker

MAX_POLICY = 262_144
"""Bytes of a policy that is sent to be tried."""
MAX_SECONDS = 60.0
"""A simulation stops then, and says that it isn't complete: it shares the process with calls."""


class PolicyReads:
    """What takes long blocks: it's for a thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def in_force(self) -> Policy | None:
        rules = self._worker.services.rules
        return rules.engine.policy if rules is not None else None

    def shown(self, found: Policy, since: str) -> policy_shown.PolicyShown:
        """Raises `Unclear`."""
        worker = self._worker
        watch, path = worker.policy, worker.config.policy
        loaded = policy_shown.Loaded(watch.loaded_us, watch.problem) if watch else policy_shown.Loaded()
        with one_moment(worker.engine) as connection:
            file, now = path.name if path else "", worker.services.now_us()
            return policy_shown.policy_shown(connection, found, file, since, now, loaded)

    def simulated(self, text: bytes, wish: policy.SimulationWish) -> policy.Simulated:
        """One at a time in each process. Raises `Conflict`, `PolicyErrors`, `Unclear`."""
        worker = self._worker
        if not worker.simulating.acquire(blocking=False):
            raise Conflict("A simulation is under way in this process: ask again when it's done.")
        try:
            tried = read_policy(text, "policy")
            with one_moment(worker.engine) as connection:
                return policy.simulate(connection, worker.config, tried, wish, worker.services.now_us())
        finally:
            worker.simulating.release()
