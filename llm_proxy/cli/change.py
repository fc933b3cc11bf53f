"""How a command changes something: by a running proxy's /admin, or in the store itself where none runs."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.agents import AgentStanding, Reason
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord
from llm_proxy.admin.errors import Conflict, NotFound, Unclear
from llm_proxy.admin.keys import KeyIssued, KeyRotated, KeyRotation, KeyWish
from llm_proxy.admin.legal_holds import HoldShown, HoldWish
from llm_proxy.admin.reading import KeyLine
from llm_proxy.admin.retention import RetentionDone
from llm_proxy.admin.run_events import RunEventShown, RunEventWish
from llm_proxy.admin.runs import RunEnding
from llm_proxy.admin.shapes import RunLine
from llm_proxy.admin.webhooks import DeliveryLine
from llm_proxy.approving import Word
from llm_proxy.cli.offline import Offline
from llm_proxy.cli.output import NOT_FOUND, stop
from llm_proxy.cli.remote import NotRunning, Remote, RemoteRefusal, Unreachable
from llm_proxy.cli.store import load, place, reason
from llm_proxy.config import Config
from llm_proxy.errors import ProxyError
from llm_proxy.records.migrate import NewerStore

TOKEN = "LLM_PROXY_TOKEN"  # noqa: S105 (the variable's name)
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where a server listens, not where we do)


class Change(Protocol):
    """What can be changed."""

    def issue(self, wish: KeyWish) -> KeyIssued: ...

    def rotate(self, wish: KeyRotation) -> KeyRotated: ...

    def revoke(self, key_id: str) -> KeyLine: ...

    def end_run(self, run_id: str, wish: RunEnding) -> RunLine: ...

    def freeze(self, agent_id: str, wish: Reason) -> AgentStanding: ...

    def thaw(self, agent_id: str, wish: Reason) -> AgentStanding: ...

    def redeliver(self, delivery_id: str, webhook: str | None) -> list[DeliveryLine]: ...

    def test_webhook(self, webhook: str) -> DeliveryLine: ...

    def decide(self, approval_id: str, decision: Word, wish: ApprovalWord) -> ApprovalShown: ...

    def report_event(self, run_id: str, wish: RunEventWish) -> RunEventShown: ...

    def place_hold(self, run_id: str, wish: HoldWish) -> HoldShown: ...

    def release_hold(self, run_id: str, wish: HoldWish) -> HoldShown: ...

    def run_retention(self) -> RetentionDone: ...


@contextmanager
def changing(option: Path | None, url: str | None) -> Generator[Change]:
    """Whoever makes the change. Ends the command with one line where it can't be made."""
    config = load(option)
    try:
        yield _open(config, url, os.environ)
    except (NotFound, Conflict) as error:
        stop(error, NOT_FOUND)
    except (Unclear, NewerStore, Unreachable) as error:
        stop(error)
    except RemoteRefusal as error:
        stop(error, NOT_FOUND if error.status in (404, 409) else 2)
    except ProxyError as error:
        stop(error.message)
    except (SQLAlchemyError, OSError) as error:
        stop(f"The store {place(config)} can't be written: {reason(error)}")


def address(config: Config) -> str:
    """Where a proxy with this config is reached from this machine."""
    host = _ANY_ADDRESS.get(config.server.host, config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def _open(config: Config, url: str | None, environ: Mapping[str, str]) -> Change:
    token = environ.get(TOKEN, "")
    if not token:
        stop(f"Set ${TOKEN}: the token of an operator with role admin, or server.admin_token.")
    remote = Remote(url or address(config), token)
    try:
        remote.find()
    except NotRunning as error:
        if url is not None:
            stop(error)
        return _offline(config, token)
    return remote


def _offline(config: Config, token: str) -> Offline:
    admin = config.server.admin_token
    nobody = f"No proxy runs at {address(config)}"
    if admin is None:
        stop(f"{nobody}, and acting without one takes server.admin_token, which the config lacks.")
    if not admin.matches(token):
        stop(
            f"{nobody}, and acting without one takes server.admin_token, which ${TOKEN} is not: "
            "start the proxy, or name a running one with --url."
        )
    return Offline(config)
