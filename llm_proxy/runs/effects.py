"""Side effects that agents and tools report: read strictly, tied to a released call, kept in the run."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind, tool_call_key
from llm_proxy.records.policy_rows import EffectRow
from llm_proxy.records.policy_tables import effects
from llm_proxy.records.runstate import JudgedCall, RunKey
from llm_proxy.records.times import iso
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates

MOST = 1_000
"""Of one run."""
MOST_SHOWN = 100
_LONGEST = {"kind": 64, "url": 2_048, "id": 256, "status": 32, "tool_call_id": 4_096, "receipt": 8_192}
_EXAMPLE = '{"kind": "issue", "url": "https://git.example/acme/web/issues/7", "tool_call_id": "call_1"}'


class EffectWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/runs/{id}/effects`. `id` is what the system that was changed calls it."""

    kind: str
    url: str = ""
    id: str = ""
    tool_call_id: str = ""
    status: str = ""
    receipt: str = ""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A reported side effect. Text of others: `url` may have any scheme, and is never fetched."""

    effect_id: str
    kind: str
    url: str
    id: str
    status: str
    tool_call_id: str
    """The released call that caused it; empty where its reporter named none."""
    tool: str
    at_us: int
    at: str


class _Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `run.effect`."""

    effect_id: str
    kind: str
    url: str
    id: str
    status: str
    tool_call_id: str
    tool: str
    by: str
    """The id of the key that reported it."""
    reported_by: str
    """That key's agent, which by a receipt may be another than the run's."""


_read = msgspec.json.Decoder(EffectWish).decode
_encode = msgspec.json.Encoder().encode


def read_effect(body: bytes) -> EffectWish:
    """Raises `ProxyError(invalid_request)`, which names the field."""
    try:
        refuse_duplicates(body)
        wish = _read(body)
    except (DuplicateKey, msgspec.DecodeError) as error:
        raise _invalid(f"The body is no side effect, such as {_EXAMPLE}: {error}.") from None
    except (ValueError, RecursionError):
        raise _invalid(f"The body is no JSON: send a side effect, such as {_EXAMPLE}.") from None
    for name, most in _LONGEST.items():
        value: str = getattr(wish, name)
        if len(value) > most or not value.isprintable():
            raise _invalid(f"{name} must be at most {most:,} characters, all of which print.", name)
    if not wish.kind.strip():
        raise _invalid("kind must say what was done, such as issue, mail or payment.", "kind")
    return wish


def report(run: RunKey, id_: str, wish: EffectWish, now_us: int, *, by: str, reported_by: str) -> Job:
    """The job that records the effect; its value is it, or the `ProxyError` that says why not."""

    def look(connection: Connection) -> int:
        query = select(func.count()).select_from(effects).where(*_of(run))
        return connection.execute(query).scalar_one()

    def then(found: Found) -> Wrote:
        if found.seen >= MOST:
            return Wrote(_full(run))
        call = _released(found.run.history, wish.tool_call_id)
        if call is None and wish.tool_call_id:
            return Wrote(_not_released(run, wish.tool_call_id))
        tool = call.tool if call else ""
        told = _Recorded(
            effect_id=id_,
            kind=wish.kind,
            url=wish.url,
            id=wish.id,
            status=wish.status,
            tool_call_id=wish.tool_call_id,
            tool=tool,
            by=by,
            reported_by=reported_by,
        )
        draft = Draft(RecordKind.RUN_EFFECT, now_us, None, run.run_id, run.agent_id, _encode(told))
        key = tool_call_key(wish.tool_call_id)
        row = EffectRow(
            id_, run.agent_id, run.run_id, key, tool, wish.kind, wish.url, wish.id, wish.status, now_us
        )
        return Wrote(_effect(row), Evidence(records=(draft,), effects=(row,)))

    return Job(then, run=run, look=look)


def effects_of(connection: Connection, run: RunKey, limit: int = MOST) -> tuple[Effect, ...]:
    """The run's, the last reported `limit` of them, in order."""
    columns = [effects.c[name] for name in EffectRow._fields]
    query = select(*columns).where(*_of(run)).order_by(effects.c.at_us.desc(), effects.c.id.desc())
    rows = connection.execute(query.limit(limit)).all()
    return tuple([_effect(EffectRow(*row)) for row in reversed(rows)])


def _of(run: RunKey) -> tuple[ColumnElement[bool], ...]:
    return effects.c.agent_id == run.agent_id, effects.c.run_id == run.run_id


def _effect(row: EffectRow) -> Effect:
    return Effect(
        effect_id=row.id,
        kind=row.kind,
        url=row.url,
        id=row.ref,
        status=row.status,
        tool_call_id=row.tool_call_id,
        tool=row.tool,
        at_us=row.at_us,
        at=iso(row.at_us),
    )


def _released(history: tuple[JudgedCall, ...], tool_call_id: str) -> JudgedCall | None:
    key = tool_call_key(tool_call_id)
    same = (call for call in reversed(history) if call.tool_call_id == key and call.decision == "allow")
    return next(same, None) if tool_call_id else None


def _full(run: RunKey) -> ProxyError:
    return ProxyError(
        Kind.RATE_LIMITED,
        f"Run {run.run_id!r} has {MOST:,} reported side effects, and takes no more: open another run.",
        retryable=False,
    )


def _not_released(run: RunKey, tool_call_id: str) -> ProxyError:
    return _invalid(
        f"Tool call {tool_call_id[:80]!r} was never released to run {run.run_id!r}: name the call that "
        "caused the effect, as the reply or the check of the action named it.",
        "tool_call_id",
    )


def _invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)
