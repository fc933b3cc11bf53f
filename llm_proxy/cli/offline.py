"""Changes made in the store itself, where no proxy runs: the same jobs, in a chain of their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from llm_proxy.admin import (
    agents,
    approvals,
    keys,
    legal_holds,
    reading,
    retention,
    run_events,
    runs,
    webhooks,
)
from llm_proxy.admin.shapes import RunLine
from llm_proxy.approving import Word
from llm_proxy.cli.committing import commit
from llm_proxy.cli.sweeping import turn
from llm_proxy.config import Config
from llm_proxy.config.values import ADMIN_TOKEN
from llm_proxy.identity import issuing
from llm_proxy.identity.issuing import NewKey, Via
from llm_proxy.identity.keyring import new_key
from llm_proxy.records.batch import Job
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.standing import Frozen
from llm_proxy.runs import rows
from llm_proxy.runs.changing import END_AT_ONCE, end_runs


class Offline:
    """Acts by the admin token, which was checked. Makes the store where there is none yet.

    Raises `NotFound`, `Unclear`, `NewerStore`, or what the database raises.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def issue(self, wish: keys.KeyWish) -> keys.KeyIssued:
        new = self._order(wish)
        with self._engine() as engine:
            self._commit(engine, issuing.issue(new, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE))
        return keys.issued(new)

    def rotate(self, wish: keys.KeyRotation) -> keys.KeyRotated:
        new = self._order(keys.KeyWish(agent_id=wish.agent_id, ttl=wish.ttl))
        until = keys.overlap_end(wish, new.created_us)
        with self._engine() as engine:
            self._commit(engine, issuing.rotate(new, until, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE))
        return keys.rotated(self._config, new, until)

    def revoke(self, key_id: str) -> reading.KeyLine:
        now = now_us()
        with self._engine() as engine:
            with engine.connect() as connection:
                key = reading.issued_key(self._config, connection, key_id)
            if key.revoked_us is None:
                self._commit(engine, keys.revocation(key, now, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE))
        return keys.revoked(key, now)

    def end_run(self, run_id: str, wish: runs.RunEnding) -> RunLine:
        with self._engine() as engine:
            with engine.connect() as connection:
                key, why = runs.ending(connection, run_id, wish)
            while unended := self._unended(engine, key):
                job = end_runs(key, unended, now_us(), why=why, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE)
                self._commit(engine, job)
            with engine.connect() as connection:
                return runs.ended(self._config, connection, key, now_us())

    def _unended(self, engine: Engine, key: RunKey) -> list[RunKey]:
        with engine.connect() as connection:
            return rows.unended(connection, key, END_AT_ONCE)

    def freeze(self, agent_id: str, wish: agents.Reason) -> agents.AgentStanding:
        job = agents.freeze(agent_id, wish, now_us(), by=ADMIN_TOKEN, via=Via.CLI_OFFLINE)
        with self._engine() as engine:
            before = self._frozen(engine, agent_id)
            if before is None:
                self._commit(engine, job)
            return agents.standing(agent_id, self._frozen(engine, agent_id), changed=before is None)

    def thaw(self, agent_id: str, wish: agents.Reason) -> agents.AgentStanding:
        job = agents.thaw(agent_id, wish, now_us(), by=ADMIN_TOKEN, via=Via.CLI_OFFLINE)
        with self._engine() as engine:
            before = self._frozen(engine, agent_id)
            if before is not None:
                self._commit(engine, job)
        return agents.standing(agent_id, None, changed=before is not None)

    def redeliver(self, delivery_id: str, webhook: str | None) -> list[webhooks.DeliveryLine]:
        with self._engine() as engine:
            return webhooks.redeliver(engine, delivery_id, webhook, now_us())

    def test_webhook(self, webhook: str) -> webhooks.DeliveryLine:
        with self._engine() as engine:
            return webhooks.send_test(self._config, engine, webhook, now_us())

    def decide(
        self, approval_id: str, decision: Word, wish: approvals.ApprovalWord
    ) -> approvals.ApprovalShown:
        with self._engine() as engine:
            with engine.connect() as connection:
                found = approvals.find(connection, approval_id)
            job = approvals.word(
                self._config, found, decision, wish, now_us(), by=ADMIN_TOKEN, via=Via.CLI_OFFLINE
            )
            approvals.heard(self._commit(engine, job), approval_id)
            with engine.connect() as connection:
                return approvals.approval_shown(self._config, connection, now_us(), approval_id)

    def report_event(self, run_id: str, wish: run_events.RunEventWish) -> run_events.RunEventShown:
        with self._engine() as engine:
            with engine.connect() as connection:
                key = run_events.meant(connection, run_id, wish)
            job, shown = run_events.happening(key, wish, now_us(), by=ADMIN_TOKEN, via=Via.CLI_OFFLINE)
            self._commit(engine, job)
        return shown

    def place_hold(self, run_id: str, wish: legal_holds.HoldWish) -> legal_holds.HoldShown:
        return self._hold(run_id, wish, legal_holds.placing)

    def release_hold(self, run_id: str, wish: legal_holds.HoldWish) -> legal_holds.HoldShown:
        return self._hold(run_id, wish, legal_holds.releasing)

    def _hold(
        self, run_id: str, wish: legal_holds.HoldWish, change: Callable[..., Job]
    ) -> legal_holds.HoldShown:
        with self._engine() as engine:
            with engine.connect() as connection:
                key = legal_holds.meant(connection, run_id, wish)
            job = change(key, wish, now_us(), by=ADMIN_TOKEN, via=Via.CLI_OFFLINE)
            outcome = self._commit(engine, job)
            with engine.connect() as connection:
                return legal_holds.hold_shown(connection, key, outcome)

    def run_retention(self) -> retention.RetentionDone:
        with self._engine() as engine:
            return retention.done(turn(self._config, engine, ADMIN_TOKEN))

    def _order(self, wish: keys.KeyWish) -> NewKey:
        return keys.order(self._config, wish, now_us(), new_key, lambda: secrets.token_hex(6))

    def _frozen(self, engine: Engine, agent_id: str) -> Frozen | None:
        with engine.connect() as connection:
            return agents.frozen_now(self._config, connection, agent_id)

    @contextmanager
    def _engine(self) -> Generator[Engine]:
        engine = open_engine(self._config.store.get_secret_value())
        try:
            upgrade(engine)
            yield engine
        finally:
            engine.dispose()

    def _commit(self, engine: Engine, job: Job) -> Any:
        return commit(self._config, engine, job)
