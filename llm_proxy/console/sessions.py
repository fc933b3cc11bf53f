"""Who is signed in: a random secret in a cookie, and in the store its hash, so that every worker knows it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import IntegrityError

from llm_proxy.admin.door import Operator
from llm_proxy.console.people import Credential, People
from llm_proxy.records.console_tables import sessions, used_sign_ins

LASTS_US = 8 * 3600 * 1_000_000
_CSRF = b"llm-proxy console form"


@dataclass(frozen=True, slots=True)
class Used:
    """What is good for one session only: its hash, and until when (Unix µs) it would be taken at all."""

    sha256: str
    until_us: int


class Replayed(Exception):
    """It was used before."""


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
    """Every method blocks."""

    def __init__(self, engine: Engine, people: People, now_us: Callable[[], int]) -> None:
        self._engine = engine
        self._people = people
        self._now_us = now_us

    def begin(self, credential: Credential, once: Used | None = None) -> Session:
        """A new session; those that are over are cleared away. Raises `Replayed` where `once` was used."""
        secret, now = secrets.token_urlsafe(32), self._now_us()
        row = {
            "sha256": _hash(secret),
            "operator": credential.operator.id,
            "credential": credential.digest,
            "groups": msgspec.json.encode(credential.groups).decode(),
            "created_us": now,
            "expires_us": now + LASTS_US,
        }
        with self._writing() as connection, connection.begin():
            connection.execute(delete(sessions).where(sessions.c.expires_us <= now))
            if once is not None:
                connection.execute(delete(used_sign_ins).where(used_sign_ins.c.expires_us <= now))
                _use(connection, once)
            connection.execute(sessions.insert().values(row))
        return Session(credential.operator, secret, now + LASTS_US)

    def find(self, secret: str) -> Session | None:
        """The session of that cookie, if it still stands and its operator still may sign in so."""
        query = select(sessions).where(sessions.c.sha256 == _hash(secret))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None or row.expires_us <= self._now_us():
            return None
        groups = msgspec.json.decode(row.groups, type=tuple[str, ...])
        credential = self._people.still(row.operator, row.credential, groups)
        return None if credential is None else Session(credential.operator, secret, row.expires_us)

    def end(self, secret: str) -> None:
        """Of a secret that no session has, nothing."""
        with self._writing() as connection, connection.begin():
            connection.execute(delete(sessions).where(sessions.c.sha256 == _hash(secret)))

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)


def _use(connection: Connection, once: Used) -> None:
    row = {"sha256": once.sha256, "expires_us": once.until_us}
    try:
        connection.execute(used_sign_ins.insert().values(row))
    except IntegrityError:
        raise Replayed from None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
