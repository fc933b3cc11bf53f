"""The figures of the store that questions are answered from."""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, exists, func, or_, select

from llm_proxy.archive.calls import each_view
from llm_proxy.archive.unsent import backlog, count_letters
from llm_proxy.posture.facts import Cut, KeysOf, Records, Signed, ToolCalls, Users
from llm_proxy.records.audit_tables import checkpoints, covered
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.policy_tables import effects
from llm_proxy.records.runstate import PROVIDER_PLACES
from llm_proxy.records.tables import calls, keys, records, runs, tool_calls, writers
from llm_proxy.records.view import Decision, Status

MOST_READ = 60
"""Calls whose verdicts are read in full, the newest."""
_CUT_WITHIN_US = 60_000_000
"""What ended longer after a freeze didn't end by it."""
_LONGEST_US = DAY_US
"""So long before a freeze may a call that was open then have begun."""
_FREEZES = 50
_CHANGES = ("write", "irreversible")


def figures(connection: Connection, since_us: int, now_us: int) -> Records:
    """All of them; those of calls since `since_us`."""
    ended = case((calls.c.status == Status.REFUSED, 1), else_=0)
    query = select(func.count(), func.sum(ended), func.max(calls.c.started_us)).where(
        calls.c.started_us >= since_us
    )
    count, refused, newest = connection.execute(query).one()
    waiting = backlog(connection)
    return Records(
        calls=count,
        refused=int(refused or 0),
        newest_us=newest,
        keys=_keys(connection, now_us),
        tools=_tools(connection, since_us),
        users=_users(connection, since_us),
        cut=_cut(connection, since_us),
        signed=_signed(connection),
        unsent=waiting.count,
        oldest_unsent_us=waiting.oldest_us,
        dead_letters=count_letters(connection),
    )


def _keys(connection: Connection, now_us: int) -> dict[str, KeysOf]:
    endless = case((keys.c.expires_us.is_(None), 1), else_=0)
    query = (
        select(keys.c.agent_id, func.count(), func.sum(endless))
        .where(keys.c.revoked_us.is_(None), or_(keys.c.expires_us.is_(None), keys.c.expires_us > now_us))
        .group_by(keys.c.agent_id)
    )
    return {id_: KeysOf(active=n, endless=int(no_end)) for id_, n, no_end in connection.execute(query)}


def _users(connection: Connection, since_us: int) -> Users:
    named = case((runs.c.user_verified, 1), else_=0)
    query = select(func.count(), func.sum(named)).where(runs.c.started_us >= since_us, runs.c.user_id != "")
    count, verified = connection.execute(query).one()
    return Users(runs=count, verified=int(verified or 0))


def _tools(connection: Connection, since_us: int) -> ToolCalls:
    row = tool_calls.c
    released, answered = row.decision == "allow", row.answered_us.is_not(None)
    changes = and_(released, row.effect.in_(_CHANGES))
    reported = exists().where(
        effects.c.agent_id == row.agent_id,
        effects.c.run_id == row.run_id,
        effects.c.tool_call_id == row.tool_call_id,
    )
    conditions = (
        row.digest != "",
        released,
        and_(released, answered),
        and_(released, answered, func.coalesce(row.result, "") != ""),
        changes,
        and_(changes, reported),
    )
    sums = [func.sum(case((condition, 1), else_=0)) for condition in conditions]
    ours = (row.at_us >= since_us, row.position < PROVIDER_PLACES)
    total, *counts = connection.execute(select(func.count(), *sums).where(*ours)).one()
    newest = (
        select(row.call_id).where(*ours).group_by(row.call_id).order_by(func.max(row.at_us).desc())
    ).limit(MOST_READ)
    decisions = _decisions(connection, [id_ for (id_,) in connection.execute(newest)])
    digests, out, back, results, writes, told = (int(each or 0) for each in counts)
    return ToolCalls(
        total=total,
        digests=digests,
        released=out,
        answered=back,
        results=results,
        changes=writes,
        effects=told,
        verdicts=len(decisions),
        judged=sum(bool(decision.policy) for decision in decisions),
        inputs=sum(decision.kept and bool(decision.arguments) for decision in decisions),
    )


def _decisions(connection: Connection, ids: list[str]) -> list[Decision]:
    return [decision for view in each_view(connection, ids) for decision in view.decisions]


def _cut(connection: Connection, since_us: int) -> Cut | None:
    """The newest freeze that ended replies under way."""
    freezes = (
        select(records.c.agent_id, records.c.at_us)
        .where(records.c.kind == RecordKind.AGENT_FROZEN, records.c.at_us >= since_us)
        .order_by(records.c.at_us.desc())
        .limit(_FREEZES)
    )
    for agent_id, at_us in connection.execute(freezes).all():
        by_it = and_(calls.c.error == "agent_frozen", calls.c.ended_us <= at_us + _CUT_WITHIN_US)
        # What else was open and went on is not cut: the last of all that was open counts.
        query = select(func.sum(case((by_it, 1), else_=0)), func.max(calls.c.ended_us)).where(
            calls.c.agent_id == agent_id,
            calls.c.status != Status.REFUSED,
            calls.c.started_us.between(at_us - _LONGEST_US, at_us),
            calls.c.ended_us >= at_us,
        )
        streams, last = connection.execute(query).one()
        if streams:
            return Cut(agent_id=agent_id, at_us=at_us, streams=int(streams), seconds=(last - at_us) / 1e6)
    return None


def _signed(connection: Connection) -> Signed:
    count, newest = connection.execute(select(func.count(), func.max(checkpoints.c.at_us))).one()
    by = func.coalesce(covered.c.seq, 0)
    query = select(func.sum(writers.c.head_seq), func.sum(writers.c.head_seq - by)).select_from(
        writers.outerjoin(covered, covered.c.writer == writers.c.writer)
    )
    total, unsigned = connection.execute(query).one()
    return Signed(checkpoints=count, newest_us=newest, unsigned=int(unsigned or 0), records=int(total or 0))
