"""What operators ask of the config and the store: agents, keys, runs and calls, ready to be shown."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection

from llm_proxy import wiring
from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.shown import maybe_iso, usd
from llm_proxy.archive.calls import call_view
from llm_proxy.archive.listings import (
    AgentSums,
    KeyView,
    RunRow,
    count_keys,
    find_key,
    list_keys,
    list_runs,
    sum_agents,
)
from llm_proxy.config import AgentConfig, Config
from llm_proxy.records.standing import Frozen, frozen_agent, frozen_agents
from llm_proxy.records.view import CallView

_ALL = 100_000


class KeyLine(msgspec.Struct, frozen=True, kw_only=True):
    """A key of an agent, less the key. `source` is `config` or `issued`; the config's keys never end."""

    id: str
    agent_id: str
    run_id: str
    source: str
    status: str
    """active | expired | revoked."""
    created_us: int | None
    created_at: str | None
    expires_us: int | None
    expires_at: str | None
    revoked_us: int | None
    revoked_at: str | None


class AgentLine(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of the config, or one that is known only from the records (`configured` is false)."""

    id: str
    configured: bool
    frozen: bool
    frozen_us: int | None
    frozen_at: str | None
    frozen_by: str
    frozen_reason: str
    owner: str
    team: str
    role: str
    models: tuple[str, ...]
    keys: int
    """Those that are active."""
    calls: int
    refused: int
    cost_usd: float
    cost_micro_usd: int
    last_seen_us: int | None
    last_seen_at: str | None


class AgentShown(AgentLine, frozen=True, kw_only=True):
    tools: tuple[str, ...]
    scopes: dict[str, tuple[str, ...]]
    require_run: bool
    credentials: tuple[KeyLine, ...]


def agent_lines(config: Config, connection: Connection | None, now_us: int, limit: int) -> list[AgentLine]:
    """The config's agents in its order, then those that only the records know, at most `limit`."""
    sums = sum_agents(connection) if connection is not None else {}
    live = Counter(key.agent_id for key in wiring.credentials(config))
    frozen: dict[str, Frozen] = {}
    if connection is not None:
        live.update(count_keys(connection, now_us))
        frozen = {agent.agent_id: agent for agent in frozen_agents(connection)}
    ids = dict.fromkeys((*config.agents, *sums))
    return [_agent(id_, config, live[id_], sums.get(id_), frozen.get(id_)) for id_ in list(ids)[:limit]]


def agent_shown(
    config: Config, connection: Connection | None, now_us: int, id_: str, issued: int = _ALL
) -> AgentShown:
    """With its newest keys, at most so many that were `issued`.

    Raises `NotFound` where neither the config nor the records know the agent.
    """
    sums = sum_agents(connection, id_) if connection is not None else {}
    if id_ not in config.agents and id_ not in sums:
        others = sum_agents(connection) if connection is not None else {}
        raise unknown_agent(id_, [*config.agents, *others])
    listed = list_keys(connection, limit=issued, agent=id_) if connection is not None else []
    good = count_keys(connection, now_us, id_)[id_] if connection is not None else 0
    own = _config_keys(config, id_)
    frozen = frozen_agent(connection, id_) if connection is not None else None
    line = _agent(id_, config, good + len(own), sums.get(id_), frozen)
    agent = config.agents.get(id_) or AgentConfig(tools=())
    return AgentShown(
        **msgspec.structs.asdict(line),
        tools=agent.tools,
        scopes=dict(agent.scopes),
        require_run=agent.require_run,
        credentials=(*(key_line(key, now_us) for key in listed), *own),
    )


def key_lines(
    config: Config, connection: Connection | None, now_us: int, limit: int, *, agent: str | None = None
) -> list[KeyLine]:
    """Issued keys, the newest first, then those of the config; at most `limit`."""
    issued = list_keys(connection, limit=limit, agent=agent) if connection is not None else []
    return [*(key_line(key, now_us) for key in issued), *_config_keys(config, agent)][:limit]


def key_line(key: KeyView, now_us: int) -> KeyLine:
    expired = key.expires_us is not None and key.expires_us <= now_us
    return KeyLine(
        **msgspec.structs.asdict(key),
        source="issued",
        status="revoked" if key.revoked_us is not None else "expired" if expired else "active",
        created_at=maybe_iso(key.created_us),
        expires_at=maybe_iso(key.expires_us),
        revoked_at=maybe_iso(key.revoked_us),
    )


def issued_key(config: Config, connection: Connection | None, id_: str) -> KeyView:
    """A key that can be revoked. Raises `NotFound`, or `Unclear` for one that stands in the config."""
    found = find_key(connection, id_) if connection is not None else None
    if found is not None:
        return found
    if any(key.key_id == id_ for key in wiring.credentials(config)):
        raise Unclear(
            f"Key {id_} stands in {config.path.name}: take it out of its agent's `keys` there, and restart."
        )
    raise NotFound(f"No key {id_[:80]!r} was issued here. `llm-proxy keys list` names those that were.")


def find_run(connection: Connection, run_id: str, agent: str | None) -> RunRow:
    """The run of that id. Raises `NotFound`; `Unclear` where several agents used the id and none is named."""
    found = list_runs(connection, limit=20, agent=agent, run=run_id)
    match found:
        case [run]:
            return run
        case []:
            of = f" of agent {agent!r}" if agent else ""
            raise NotFound(
                f"No run {run_id[:256]!r}{of} is recorded. `llm-proxy runs list` names the latest ones."
            )
        case _:
            agents = ", ".join(sorted(run.agent_id for run in found))
            raise Unclear(f"Run {run_id!r} is the id of a run of each of {agents}: name the agent.")


def find_call(connection: Connection, id_: str) -> CallView:
    """Raises `NotFound`."""
    call = call_view(connection, id_)
    if call is None:
        raise NotFound(f"No call {id_[:80]!r} is recorded. `llm-proxy calls list` names the latest ones.")
    return call


def unknown_agent(id_: str, known: Iterable[str]) -> NotFound:
    names = tuple(known)
    near = difflib.get_close_matches(id_, names, n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"known are {', '.join(names[:20])}" if names else "the config has none"
    return NotFound(f"No agent is named {id_[:80]!r}: {hint}")


def _config_keys(config: Config, agent: str | None) -> list[KeyLine]:
    return [
        _config_key(found.key_id, found.agent_id)
        for found in wiring.credentials(config)
        if agent in (None, found.agent_id)
    ]


def _config_key(id_: str, agent_id: str) -> KeyLine:
    return KeyLine(
        id=id_,
        agent_id=agent_id,
        run_id="",
        source="config",
        status="active",
        created_us=None,
        created_at=None,
        expires_us=None,
        expires_at=None,
        revoked_us=None,
        revoked_at=None,
    )


def _agent(id_: str, config: Config, keys: int, sums: AgentSums | None, frozen: Frozen | None) -> AgentLine:
    agent = config.agents.get(id_) or AgentConfig()
    cost = sums.cost_micro_usd if sums else 0
    return AgentLine(
        id=id_,
        configured=id_ in config.agents,
        frozen=frozen is not None,
        frozen_us=frozen.since_us if frozen else None,
        frozen_at=maybe_iso(frozen.since_us if frozen else None),
        frozen_by=frozen.by if frozen else "",
        frozen_reason=frozen.reason if frozen else "",
        owner=agent.owner,
        team=agent.team,
        role=agent.role,
        models=agent.models,
        keys=keys,
        calls=sums.calls if sums else 0,
        refused=sums.refused if sums else 0,
        cost_usd=usd(cost),
        cost_micro_usd=cost,
        last_seen_us=sums.last_us if sums else None,
        last_seen_at=maybe_iso(sums.last_us if sums else None),
    )
