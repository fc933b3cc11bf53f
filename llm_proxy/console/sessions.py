"""Who is signed in: a random secret in a cookie, and in the store its hash, so that every worker knows it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, select

from llm_proxy.admin.door import Operator
from llm_proxy.records.console_tables import sessions

LASTS_US = 8 * 3600 * 1_000_000
_CSRF = b"llm-proxy console form"


@dataclass(frozen=True, slots=True)
class Credential:
    """An operator and what they sign in with; `digest` changes when that does."""

    operator: Operator
    digest: str


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in. `secret` is what their cookie holds."""

    operator: Operator
    secret: str
    expires_us: int

    @property
    def form_token(self) -> str:
        """What every form of this session carries, and no other site can know (hex)."""
        return hmac.new(self.secret.encode(), _CSRF, hashlib.sha256).hexdigest()

    def sent(self, form_token: str) -> bool:
        """Whether a form came from a page of this session; in constant time."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode("utf-8", "replace"))


class Sessions:
    """Every method blocks. `credentials` are those of the configuration, by the operator's id."""

    def __init__(
        self, engine: Engine, credentials: Mapping[str, Credential], now_us: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._credentials = credentials
        self._now_us = now_us

    def begin(self, credential: Credential) -> Session:
        """A new session; those that are over are cleared away."""
        secret, now = secrets.token_urlsafe(32), self._now_us()
        row = {
            "sha256": _hash(secret),
            "operator": credential.operator.id,
            "credential": credential.digest,
            "created_us": now,
            "expires_us": now + LASTS_US,
        }
        with self._writing() as connection, connection.begin():
            connection.execute(delete(sessions).where(sessions.c.expires_us <= now))
            connection.execute(sessions.insert().values(row))
        return Session(credential.operator, secret, now + LASTS_US)

    def find(self, secret: str) -> Session | None:
        """The session of that cookie, if it still stands and its operator still may sign in so."""
        query = select(sessions).where(sessions.c.sha256 == _hash(secret))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None or row.expires_us <= self._now_us():
            return None
        credential = self._credentials.get(row.operator)
        if credential is None or not hmac.compare_digest(credential.digest, row.credential):
            return None
        return Session(credential.operator, secret, row.expires_us)

    def end(self, session: Session) -> None:
        with self._writing() as connection, connection.begin():
            connection.execute(delete(sessions).where(sessions.c.sha256 == _hash(session.secret)))

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
