"""A run in its tree: what it is bound by, and whether it's over. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from budgets import RunRef
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.lineage import ALONE, Lineage
from llm_proxy.identity.names import NameSet
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.standing import RunEnded
from llm_proxy.runs.envelope import bound_of, read
from llm_proxy.runs.rows import DEEPEST, StoredRun

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Placed(msgspec.Struct, frozen=True):
    """A run with all that stands above it."""

    key: RunKey
    lineage: Lineage = ALONE
    above: tuple[RunKey, ...] = ()
    """The nearest first."""
    expires: RunKey | None = None
    """Which of them expires first, at `lineage.expires_us`."""
    link: str = ""
    """The run that it's linked to and does not stand below."""
    ending: RunEnded | None = None
    """The nearest that was ended when this was read."""
    team: str = ""
    user_id: str = ""
    """On whose behalf it was begun, as far as somebody said."""
    user_verified: bool = False

    @property
    def parent(self) -> RunKey | None:
        return self.above[0] if self.above else None


def placed(rows: Sequence[StoredRun]) -> Placed:
    """The first of `rows`, which the others stand above, the nearest first."""
    own, *above = rows
    envelopes = [(row, read(row.envelope)) for row in rows]
    bounds = (bound_of(row.agent_id, row.run_id, envelope) for row, envelope in envelopes)
    expiring = min(
        ((row.expires_us, row.key) for row in rows if row.expires_us is not None),
        key=lambda pair: pair[0],
        default=(None, None),
    )
    lineage = Lineage(
        ancestors=tuple([_ref(row) for row in above]),
        envelopes=tuple([bound for bound in bounds if bound is not None]),
        tools=tuple([NameSet(envelope.tools) for _, envelope in envelopes if envelope.tools is not None]),
        expires_us=expiring[0],
    )
    ended = next((row for row in rows if row.ended_us is not None), None)
    return Placed(
        key=own.key,
        lineage=ALONE if lineage == ALONE else lineage,
        above=tuple([row.key for row in above]),
        expires=expiring[1],
        link="" if own.parent_agent_id else own.parent_run_id,
        ending=_ending(ended) if ended is not None else None,
        team=own.team,
        user_id=own.user_id,
        user_verified=own.user_verified,
    )


def below(parent: Placed, key: RunKey, team: str) -> Placed:
    """A run that begins right below `parent`, for its user. Raises `ProxyError` where that is too deep."""
    above = (parent.key, *parent.above)
    if len(above) > DEEPEST:
        raise ProxyError(
            Kind.INVALID_REQUEST,
            f"Run {parent.key.run_id!r} stands {DEEPEST} runs deep, and none may stand deeper: "
            "name a run nearer to the root as the parent.",
            param="x-parent-run-id",
            retryable=False,
        )
    ref = RunRef(parent.key.agent_id, parent.key.run_id, parent.team or None, parent.user_id or None)
    lineage = msgspec.structs.replace(parent.lineage, ancestors=(ref, *parent.lineage.ancestors))
    return msgspec.structs.replace(parent, key=key, lineage=lineage, above=above, team=team)


def run_ended(key: RunKey, ending: RunEnded) -> ProxyError:
    """The refusal of what is asked for in a run that was ended, or below one."""
    over = RunKey(ending.agent_id, ending.run_id)
    return _over(key, over, f"was ended at {iso(ending.ended_us)}: {ending.why.rstrip('.')}")


def run_expired(key: RunKey, expired: RunKey, at_us: int) -> ProxyError:
    return _over(key, expired, f"expired at {iso(at_us)}")


def _over(key: RunKey, over: RunKey, how: str) -> ProxyError:
    which = f"Run {key.run_id!r}"
    if over != key:
        of = f" of agent {over.agent_id!r}" if over.agent_id != key.agent_id else ""
        which += f" is part of run {over.run_id!r}{of}, which"
    message = f"{which} {how}. Start another run: open one with POST /v1/runs, or send another x-run-id."
    return ProxyError(Kind.RUN_ENDED, message, retryable=False)


def iso(us: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return f"{_EPOCH + timedelta(microseconds=us):%Y-%m-%dT%H:%M:%SZ}"


def _ref(row: StoredRun) -> RunRef:
    return RunRef(row.agent_id, row.run_id, row.team or None, row.user_id or None)


def _ending(row: StoredRun) -> RunEnded:
    return RunEnded(row.agent_id, row.run_id, row.ended_us or 0, row.ended_why)
