"""Who acts and what they may: identity, permissions, owners, operators, budgets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llm_proxy.config.budgeting import BudgetConfig
from llm_proxy.config.choices import Role
from llm_proxy.config.schema import AgentConfig
from llm_proxy.policy.schema import Mode
from llm_proxy.policy.vocabulary import Decision
from llm_proxy.posture.answers import Answer, Check, Found, Note, answered, names, share
from llm_proxy.posture.facts import Facts

_ANY = "*"


def everything(entries: Iterable[str]) -> bool:
    """Whether one of an agent's globs fits whatever name there is: `*`, `**`, `?*`."""
    return any(_ANY in entry and not entry.strip("*?") for entry in entries)


def identity(facts: Facts) -> Answer:
    return answered(
        "identity", "Has every agent its own identity and owner?", _identity(facts), vital=("no agent",)
    )


def _identity(facts: Facts) -> Iterator[Found]:
    agents = facts.config.agents
    if not agents:
        yield Check(
            False, "no agent is configured", "Name each agent under `agents`, with its owner and key."
        )
        return
    issued = facts.records.keys if facts.records else {}
    issuers = facts.config.identity.issuers
    yield Note(_count(len(agents), "agent"))
    owned = [id_ for id_, agent in agents.items() if not agent.owner]
    yield Check(not owned, _lack(owned, "an owner"), "Set `owner` of each agent: who answers for it.")
    bare = [
        id_
        for id_, agent in agents.items()
        if not (agent.keys or issuers or (id_ in issued and issued[id_].active))
    ]
    todo = "Issue one: `llm-proxy keys issue AGENT --ttl 30d`, or take its entry out of the config."
    yield Check(not bare, _lack(bare, "a credential"), todo)
    shared = _shared(agents)
    told = f"agents share a key: {names(shared)}" if shared else "no two agents share a key"
    yield Check(not shared, told, "Give each agent a key of its own: `llm-proxy keys issue AGENT`.")
    plain = [key for key in facts.plain if key.startswith("agents.")]
    told = f"keys stand in the config in plain text: {names(plain)}" if plain else "no key is in plain text"
    yield Check(not plain, told, "Put sha256:HEX, ${VAR} or file:PATH in their place, or issue keys instead.")
    active, endless = sum(k.active for k in issued.values()), sum(k.endless for k in issued.values())
    configured = sum(len(agent.keys) for agent in agents.values())
    yield Note(
        f"keys: {configured:,} in the config, {active:,} issued and active ({endless:,} without an end), "
        f"{len(issuers):,} issuers of tokens"
    )


def _shared(agents: Mapping[str, AgentConfig]) -> list[str]:
    seen: dict[str, str] = {}
    found: list[str] = []
    for id_, agent in agents.items():
        for key in agent.keys:
            other = seen.setdefault(key.sha256, id_)
            if other != id_:
                found.append(f"{other} and {id_}")
    return found


def permissions(facts: Facts) -> Answer:
    return answered(
        "permissions",
        "Are agents' permissions apart from their users'?",
        _permissions(facts),
        vital=("no agent",),
    )


def _permissions(facts: Facts) -> Iterator[Found]:
    agents = facts.config.agents
    if not agents:
        yield Check(False, "no agent is configured", "Name each agent under `agents`, with what it may do.")
        return
    models = [id_ for id_, agent in agents.items() if everything(agent.models)]
    told = f"may use every model: {names(models)}" if models else "every agent's models are listed"
    yield Check(not models, told, "List the models that each agent needs in its `models`.")
    bounded = _tools_have_roles(facts)
    tools = [id_ for id_, agent in agents.items() if everything(agent.tools) and not bounded]
    told = f"may be given every tool: {names(tools)}" if tools else "every agent's tools are bounded"
    yield Check(
        not tools, told, "List each agent's `tools`, or the `roles` of every tool in the policy's registry."
    )
    free = [id_ for id_, agent in agents.items() if not (agent.role or agent.scopes)]
    yield Check(
        not free,
        _lack(free, "a role or scopes"),
        "Set `role` or `scopes`, so that the policy can tell them apart.",
    )
    users = facts.records.users if facts.records else None
    if users is None or not users.runs:
        yield Note(f"no run of the last {facts.days} days was on behalf of a user")
        return
    yield Check(
        users.verified == users.runs,
        f"the credential named the user in {share(users.verified, users.runs)} runs on behalf of one",
        "Have users come with a token of an issuer under `identity.issuers`: a header is the agent's word.",
    )


def _tools_have_roles(facts: Facts) -> bool:
    """Whether the policy says of every tool which roles may use it, and lets no other tool through."""
    file = facts.policy
    if file is None or file.policy.mode is not Mode.ENFORCE or file.posture.fallback is Decision.ALLOW:
        return False
    return all(tool.roles is not None or tool.tier == "prohibited" for tool in file.tools.values())


def owners(facts: Facts) -> Answer:
    return answered(
        "owners", "Has every agent, tool and policy an owner?", _owners(facts), vital=("no policy",)
    )


def _owners(facts: Facts) -> Iterator[Found]:
    agents = facts.config.agents
    bare = [id_ for id_, agent in agents.items() if not agent.owner]
    yield Check(not bare, _lack(bare, "an owner", "agent", len(agents)), "Set `owner` of each agent.")
    file = facts.policy
    if file is None:
        yield Check(False, "no policy is in force, and so no tool has an owner", NO_POLICY)
        return
    tools = [name for name, tool in file.tools.items() if not tool.owner]
    yield Check(
        not tools,
        _lack(tools, "an owner", "tool", len(file.tools)),
        "Set `owner` of each tool in the policy: who answers for what it does.",
    )
    owner = file.policy.owner
    told = f"policy {file.policy.id} " + (f"belongs to {owner}" if owner else "has no owner")
    yield Check(bool(owner), told, "Set `policy.owner` in the policy file.")


def operators(facts: Facts) -> Answer:
    return answered(
        "operators", "Is it known who operates it, each with a token of their own?", _operators(facts)
    )


def _operators(facts: Facts) -> Iterator[Found]:
    config = facts.config
    admin = config.server.admin_token
    oidc = config.oidc
    people = [one for one in config.operators if one.token is not None or (oidc.on and one.roles)]
    by_group = [role for roles in oidc.roles.values() for role in roles]
    may = admin is not None or Role.ADMIN in by_group or any(Role.ADMIN in one.roles for one in people)
    yield Check(
        may,
        "somebody may administer" if may else "nobody may administer: no admin token, no operator",
        "Set server.admin_token, or give an operator role admin and a token.",
    )
    by = "with a token of their own" + (", or by OIDC" if oidc.on else "")
    yield Check(
        bool(people or by_group),
        f"{_count(len(people), 'operator')} {by}: {names(p.id for p in people) or 'by their groups'}"
        if people or by_group
        else "no operator has a token: records say `admin_token` for whoever acts",
        "Name people under `operators`, each with an id, roles and a token; or set `oidc`.",
    )
    short = [person.id for person in people if person.token is not None and person.token.short]
    if admin is not None and admin.short:
        short.append("server.admin_token")
    told = f"tokens are short enough to guess: {names(short)}" if short else "no token is known to be short"
    yield Check(not short, told, "Use 32 random characters or more: `openssl rand -base64 32`.")
    plain = [key for key in facts.plain if key.startswith(("operators", "server.", "oidc."))]
    told = (
        f"secrets stand in the config in plain text: {names(plain)}" if plain else "no token is in plain text"
    )
    yield Check(not plain, told, "Put sha256:HEX, ${VAR} or file:PATH in their place.")


def budgets(facts: Facts) -> Answer:
    return answered("budgets", "Has every agent a limit on what it spends?", _budgets(facts))


def _budgets(facts: Facts) -> Iterator[Found]:
    config = facts.config
    for id_, agent in config.agents.items():
        limits = [budget.id for budget in config.budgets if _bounds(budget, id_, agent)]
        told = f"agent {id_}: {names(limits)}" if limits else f"agent {id_} has no limit that blocks"
        yield Check(
            bool(limits), told, 'Add a limit in usd or tokens under `budgets`: `agent: "*"` is each agent.'
        )


def _bounds(budget: BudgetConfig, agent_id: str, agent: AgentConfig) -> bool:
    """Whether it holds back this agent's spending, whatever else is said of the call."""
    if budget.on_exceed == "warn" or (budget.usd is None and budget.tokens is None):
        return False
    if budget.user or budget.key or budget.model or budget.tag:
        return False
    return budget.agent in (None, _ANY, agent_id) and budget.team in (None, _ANY, agent.team)


NO_POLICY = "Name a policy file: `policy: policy.yaml`; `llm-proxy init` writes one to start from."


def _lack(found: list[str], what: str, kind: str = "agent", of: int = 0) -> str:
    if found:
        return f"without {what}: {names(found)}"
    return f"every {kind} has {what}" if not of else f"each of {_count(of, kind)} has {what}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
