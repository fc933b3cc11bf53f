"""What a reply says that the provider ran itself: recorded, and part of the run before anything is released.

Their results come into the run unseen. So each use labels the run as its entry in the registry says, stands
in the run's history for sequences and caps, and one that was not let through labels it as the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from llm_proxy.chat.reply import Assembly, ServerToolUse
from llm_proxy.exchange import Exchange
from llm_proxy.judging import Rules
from llm_proxy.policy import names
from llm_proxy.policy.schema import Tier
from llm_proxy.policy.verdict import ResultLabel
from llm_proxy.records import bodies
from llm_proxy.records.advancing import run_update
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import Draft, Evidence, RecordKind, ToolCallRow, tool_call_key
from llm_proxy.records.runstate import PROVIDER_PLACES, RunKey
from llm_proxy.records.view import ProviderUse
from llm_proxy.records.writer import Writer
from llm_proxy.wire.declared import MCP_LIST, Hosted

_MOST = 1_000
"""Uses of one reply that are recorded one by one."""


class _Used(msgspec.Struct, frozen=True):
    """One use, with the entries of the registry that it is under; none where nothing let it through."""

    use: ServerToolUse
    entries: tuple[str, ...]


async def take_in(
    exchange: Exchange,
    rules: Rules,
    assembly: Assembly,
    writer: Writer,
    now_us: Callable[[], int],
    *,
    told: bool,
) -> None:
    """Commits what the provider ran for this reply. `told`: the target had the declarations as they are.

    Nothing is committed where it ran nothing. Raises `ProxyError` where it can't be.
    """
    offer = exchange.offer
    allowed = offer.allows if offer is not None else ()
    used = [_Used(use, _entries(exchange, rules, use.name, allowed)) for use in _uses(assembly)][:_MOST]
    unseen = [hosted.name for hosted in allowed if hosted.unseen] if told else []
    if not used and not unseen:
        return
    labels = [*(_label(rules, of) for of in used), *(_known(rules, name) for name in unseen)]
    uses = [_view(of) for of in used] + [ProviderUse(tool=name) for name in unseen]
    await writer.submit(_job(exchange, rules, used, uses, labels, now_us()))
    exchange.provider_uses += len(used)


def _uses(assembly: Assembly) -> Iterable[ServerToolUse]:
    """Results have the names of the blocks that they are in."""
    return [use for use in assembly.server_tools() if not use.name.endswith("_tool_result")]


def _entries(exchange: Exchange, rules: Rules, name: str, allowed: Sequence[Hosted]) -> tuple[str, ...]:
    """The names in the registry that a use goes by. A stored reply was declared by another request."""
    tools = rules.engine.policy.tools
    if exchange.fetches:
        entry = tools.get(name)
        return (name,) if entry is not None and entry.spec.tier is not Tier.PROHIBITED else ()
    covering = [hosted.name for hosted in allowed if hosted.covers(name)]
    return (name,) if covering and name in tools and name != MCP_LIST else tuple(covering)


def _known(rules: Rules, name: str) -> ResultLabel:
    return rules.engine.result_label(name, known=True)


def _label(rules: Rules, used: _Used) -> ResultLabel:
    if not used.entries:
        return rules.engine.result_label(None, known=False)
    labels = [_known(rules, name) for name in used.entries]
    return ResultLabel(max(one.sensitivity for one in labels), any(one.untrusted for one in labels))


def _view(used: _Used) -> ProviderUse:
    rule = "" if used.entries else names.UNDECLARED_SERVER_TOOL
    return ProviderUse(tool=used.use.name, id=used.use.id, rule=rule)


def _job(
    exchange: Exchange,
    rules: Rules,
    used: Sequence[_Used],
    uses: Sequence[ProviderUse],
    labels: Sequence[ResultLabel],
    now_us: int,
) -> Job:
    assert exchange.caller is not None
    key = RunKey(exchange.caller.agent.id, exchange.run_id)
    sensitivity = max(label.sensitivity for label in labels)
    untrusted = any(label.untrusted for label in labels)
    first = PROVIDER_PLACES + exchange.provider_uses
    rows = tuple([_row(exchange, rules, key, first + n, of, now_us) for n, of in enumerate(used)])

    def then(found: Found) -> Wrote:
        update = run_update(found.run, key, sensitivity=sensitivity, untrusted=untrusted)
        body = bodies.encode(
            bodies.ProviderTools(
                uses=tuple(uses),
                sensitivity=update.sensitivity,
                untrusted=update.untrusted,
                revision=update.revision,
            )
        )
        draft = Draft(RecordKind.PROVIDER_TOOLS, now_us, exchange.id, key.run_id, key.agent_id, body)
        return Wrote(None, Evidence(records=(draft,), tool_calls=rows, run_updates=(update,)))

    return Job(then=then, run=key)


def _row(exchange: Exchange, rules: Rules, key: RunKey, place: int, used: _Used, now_us: int) -> ToolCallRow:
    """It ran, and its result is there: allowed and answered, whatever should have been."""
    effect = rules.engine.policy.entry(used.entries[0] if used.entries else used.use.name).spec.effect
    return ToolCallRow(
        key.agent_id,
        key.run_id,
        exchange.id,
        0,
        place,
        tool_call_key(used.use.id),
        column(used.use.name),
        "allow",
        effect.value,
        "",
        now_us,
        now_us,
    )
