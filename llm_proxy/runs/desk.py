"""Opens runs under envelopes, tells how they stand, and ends them, for agents and for operators."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from budgets import Counter, LimitBook, SqlLedger, Subject
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.issuing import NewKey, Via, key_id
from llm_proxy.identity.keyring import new_key
from llm_proxy.identity.names import NameSet
from llm_proxy.records.ids import uuid7
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.writer import Writer
from llm_proxy.runs import rows
from llm_proxy.runs.changing import END_AT_ONCE, TOKEN_OUTLIVES_US, NewRun, end_runs, open_run
from llm_proxy.runs.envelope import Envelope
from llm_proxy.runs.grant import denied, within_limits, within_parents, within_tools
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.placed import Placed, below
from llm_proxy.runs.tree import RunTree
from llm_proxy.runs.view import RunView, view_of
from llm_proxy.runs.wish import RunWish, envelope_of, life_s

MOST_OPEN = 1_000
"""Runs that an agent may have opened and not ended at one time."""


class RunDesk:
    """One per worker."""

    def __init__(
        self,
        tree: RunTree,
        lookup: RunLookup,
        book: LimitBook,
        writer: Writer,
        now_us: Callable[[], int],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """`refresh` makes this worker notice at once what ended; the others do within a second."""
        self._tree = tree
        self._lookup = lookup
        self._book = book
        self._writer = writer
        self._now_us = now_us
        self._refresh = refresh

    async def open(self, caller: Caller, token: str, wish: RunWish) -> tuple[RunView, NewKey]:
        """The run as it stands now, and its token. `token` is the one that was shown in x-run-token.

        Raises `ProxyError`: invalid_request, policy_denied for what can't be granted, run_ended below a run
        that is over, rate_limited where too many are open.
        """
        envelope, life_us = envelope_of(wish.envelope), life_s(wish.envelope) * 1_000_000
        now = self._now_us()
        above = await self._above(caller, token, wish.parent)
        key = RunKey(caller.agent.id, wish.run_id or f"run_{uuid7(now)}")
        if above is not None:
            self._fits(key, above, caller.agent.team)
        user, verified = _user_of(caller, above, wish.user)
        subject = Subject(
            agent=caller.agent.id,
            team=caller.agent.team or None,
            user=user or None,
            key=caller.key_id,
            run=key.run_id,
            user_verified=verified,
        )
        within_limits(envelope, self._book.bounds(subject, now))
        await self._within_tree(caller, above, envelope, now)
        expires_us = _expiry(now, life_us, above, asked=wish.envelope.expires_s is not None)
        new = NewRun(
            agent=caller.agent,
            run_id=key.run_id,
            purpose=wish.purpose.strip(),
            trigger=wish.trigger,
            envelope=envelope,
            started_us=now,
            expires_us=expires_us,
            token=_token(key, now, expires_us),
            by=caller.key_id,
            parent=above.key if above else None,
            user_id=user,
            user_verified=verified,
        )
        if not await self._opened(new):
            raise _exists(key.run_id)
        view = await self.view(key)
        assert view is not None, "a run that was opened can't be read"
        return view, new.token

    async def view(self, key: RunKey) -> RunView | None:
        now = self._now_us()
        return await self._lookup.ask(lambda connection: view_of(connection, self._book, key, now))

    async def end(self, key: RunKey, *, why: str, by: str, via: Via) -> None:
        """Ends the run and those below it; one that was ended before keeps its reason."""
        while True:
            unended = await self._lookup.ask(lambda connection: rows.unended(connection, key, END_AT_ONCE))
            if not unended:
                break
            await self._writer.submit(end_runs(key, unended, self._now_us(), why=why, by=by, via=via))
        await self._refresh()

    async def may_see(self, caller: Caller, key: RunKey) -> bool:
        """Whether a caller of the run's own agent may: one bound to a run sees that, and what is below it."""
        if not caller.run_id or caller.run_id == key.run_id:
            return True
        found = await self._tree.find(key)
        return found is not None and RunKey(caller.agent.id, caller.run_id) in found.above

    async def _above(self, caller: Caller, token: str, parent: str) -> Placed | None:
        """The run that a new one is to stand below: a key that is bound to a run opens none elsewhere."""
        if caller.run_id:
            own = RunKey(caller.agent.id, caller.run_id)
            shown = await self._tree.find(own) or Placed(own, team=caller.agent.team)
            whose = "The key is bound to"
        elif token:
            shown, whose = await self._tree.shown_run(token), "x-run-token is that of"
        elif parent:
            found = await self._tree.find(RunKey(caller.agent.id, parent))
            if found is None:
                raise denied(
                    f"Run {parent!r} is no run of agent {caller.agent.id!r}: name one of its own, or show "
                    "the token of another agent's run in the header x-run-token.",
                    "parent",
                )
            return found
        else:
            return None
        if parent not in ("", shown.key.run_id):
            raise denied(
                f"{whose} run {shown.key.run_id!r}, and the parent named is {parent!r}: leave parent out.",
                "parent",
            )
        return shown

    def _fits(self, key: RunKey, above: Placed, team: str) -> None:
        """Raises `ProxyError` where the run `key` can't begin right below `above`."""
        if above.key == key:
            raise _exists(key.run_id)
        self._tree.check(above)
        below(above, key, team)

    async def _within_tree(self, caller: Caller, above: Placed | None, envelope: Envelope, now: int) -> None:
        allowed = [(NameSet(caller.agent.tools), f"agent {caller.agent.id!r}")]
        keys: list[str] = []
        if above is not None:
            allowed += [(names, f"run {above.key.run_id!r} above it") for names in above.lineage.tools]
            keys = [bound.key for bound in above.lineage.envelopes]
        within_tools(envelope, allowed)

        def read(connection: Connection) -> tuple[int, Mapping[str, Counter]]:
            open_ = rows.count_open(connection, caller.agent.id, now, MOST_OPEN)
            return open_, SqlLedger(connection.dialect).peek(connection, keys) if keys else {}

        open_, counters = await self._lookup.ask(read)
        if open_ >= MOST_OPEN:
            raise ProxyError(
                Kind.RATE_LIMITED,
                f"Agent {caller.agent.id!r} has {MOST_OPEN:,} open runs: end those that are done.",
                retryable=False,
            )
        if above is not None:
            within_parents(envelope, above.lineage, counters)

    async def _opened(self, new: NewRun) -> bool:
        try:
            return await self._writer.submit(open_run(new))
        except IntegrityError:
            return False  # another process began it at the same moment


def _user_of(caller: Caller, above: Placed | None, named: str) -> tuple[str, bool]:
    """On whose behalf a run is opened, and whether that's verified: such a user of the run above stands."""
    if caller.user_id:
        return caller.user_id, True
    if above is not None and above.user_verified:
        return above.user_id, True
    return named or (above.user_id if above is not None else ""), False


def _token(key: RunKey, now_us: int, expires_us: int) -> NewKey:
    return NewKey(
        key=new_key(),
        id=key_id(secrets.token_hex(6)),
        agent_id=key.agent_id,
        run_id=key.run_id,
        created_us=now_us,
        expires_us=expires_us + TOKEN_OUTLIVES_US,
    )


def _expiry(now_us: int, life_us: int, above: Placed | None, *, asked: bool) -> int:
    """When the run expires. Raises `ProxyError(policy_denied)` where it asks to outlive a run above it."""
    latest = above.lineage.expires_us if above is not None else None
    if latest is None or now_us + life_us <= latest:
        return now_us + life_us
    if asked:
        raise denied(
            f"The envelope's expires_s is longer than the runs above it last: of these "
            f"{(latest - now_us) // 1_000_000} s are left. Ask for less, or leave it out.",
            "envelope.expires_s",
        )
    return latest


def _exists(run_id: str) -> ProxyError:
    return ProxyError(
        Kind.INVALID_REQUEST,
        f"A run {run_id!r} is there already, and what it may use is fixed: send another run_id, or none.",
        param="run_id",
        retryable=False,
    )
