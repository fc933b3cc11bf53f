"""A proxy.yaml as text that people can read on: a block for each model, a comment for what was left out."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llm_proxy.importing.drafts import AgentDraft, BudgetDraft, ModelDraft, ProxyDraft, TargetDraft

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_WIDTH = 110

Scalar = str | int | float
Entry = tuple[str, str]
"""A key and its value, as they stand in the file."""


def written(draft: ProxyDraft, header: Sequence[str], comments: Mapping[str, Sequence[str]]) -> str:
    """`comments` are those of each model, by its name."""
    lines = [line for text in header for line in commented(text)]
    lines += _top(draft)
    if draft.models:
        lines += ["", "models:", *_models(draft.models, comments)]
    if draft.prices:
        rows = (f"  {quoted(name)}: {_flow(row.items())}" for name, row in draft.prices.items())
        lines += ["", "# USD per token.", "prices:", *rows]
    if draft.agents:
        lines += ["", "agents:", *(line for agent in draft.agents for line in _agent(agent))]
    if draft.budgets:
        lines += ["", "budgets:", *(f"  - {_flow(_budget(budget))}" for budget in draft.budgets)]
    return "\n".join(lines) + "\n"


def commented(text: str) -> list[str]:
    """`text` as comment lines, which nothing in it can end; what goes on in the next line is indented."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    lines = textwrap.wrap(
        plain,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or ["#"]


def quoted(text: str) -> str:
    """`text` so that YAML reads it back, as a key or a value, in a block or a flow."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if "\ud800" <= char <= "\udfff":
        return "\N{REPLACEMENT CHARACTER}"
    if char.isprintable():
        return char
    return f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else f"\\u{ord(char):04x}"


def _scalar(value: Scalar) -> str:
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(int(value) if value == int(value) else value)


def _flow(entries: Iterable[tuple[str, Scalar]]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in entries) + "}"


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(map(quoted, items)) + "]"


def _top(draft: ProxyDraft) -> Iterator[str]:
    server = draft.server
    if server.admin_token or server.max_body_mb:
        yield from ("", "server:")
        if server.admin_token:
            yield f"  admin_token: {quoted(server.admin_token)}"
        if server.max_body_mb:
            yield f"  max_body_mb: {server.max_body_mb}"
    if draft.otlp_endpoint:
        yield from ("", "telemetry:", f"  otlp_endpoint: {quoted(draft.otlp_endpoint)}")
    if draft.translation:
        yield from ("", f"translation: {draft.translation}")


def _models(models: Iterable[ModelDraft], comments: Mapping[str, Sequence[str]]) -> Iterator[str]:
    before = False
    for n, model in enumerate(models):
        if n and not (model.compact and before):
            yield ""
        before = model.compact
        yield from (f"  {line}" for text in comments.get(model.name, ()) for line in commented(text))
        yield from _compact(model) if model.compact else _model(model)


def _compact(model: ModelDraft) -> Iterator[str]:
    targets = ", ".join(_flow(_target(target)) for target in model.targets)
    entries = [*_settings(model), ("targets", f"[{targets}]")]
    yield f"  {quoted(model.name)}: {{{', '.join(f'{key}: {value}' for key, value in entries)}}}"


def _model(model: ModelDraft) -> Iterator[str]:
    yield f"  {quoted(model.name)}:"
    for key, value in _settings(model):
        yield f"    {key}: {value}"
    yield "    targets:"
    for target in model.targets:
        flow = f"      - {_flow(_target(target))}"
        if len(flow) <= _WIDTH and not target.dialects:
            yield flow
        else:
            yield from _long_target(target)


def _long_target(target: TargetDraft) -> Iterator[str]:
    for n, (key, value) in enumerate(_target(target)):
        yield f"      {'-' if n == 0 else ' '} {key}: {_scalar(value)}"
    if target.dialects:
        yield f"        dialects: {_list(target.dialects)}"


def _settings(model: ModelDraft) -> Iterator[Entry]:
    """What a model has besides targets."""
    if model.strategy:
        yield "strategy", model.strategy.value
    if model.affinity_off:
        yield "affinity", "none"
    for key in ("fallbacks", "context_fallbacks", "content_fallbacks"):
        if names := getattr(model, key):
            yield key, _list(_escaped_names(names))
    if model.retries is not None:
        yield "retries", str(model.retries)
    times = (("first_event_s", model.first_event_s), ("idle_s", model.idle_s), ("total_s", model.total_s))
    if found := [(key, value) for key, value in times if value is not None]:
        yield "timeouts", _flow(found)
    breaker = (("failures", model.failures), ("cool_down_s", model.cool_down_s))
    if rests := [(key, value) for key, value in breaker if value is not None]:
        yield "breaker", _flow(rests)
    if model.drains:
        yield "on_leave", "drain"


def _escaped_names(names: Iterable[str]) -> Iterator[str]:
    """Names are values here, and keys elsewhere: only in values does `$` begin a reference."""
    return (name.replace("$", "$$") for name in names)


def _target(target: TargetDraft) -> Iterator[tuple[str, Scalar]]:
    yield "id", target.id
    yield "provider", target.provider
    yield "model", target.model.replace("$", "$$")
    others: tuple[tuple[str, Scalar | None], ...] = (
        ("base_url", target.base_url),
        ("api_key", target.api_key),
        ("rpm", target.rpm),
        ("tpm", target.tpm),
        ("concurrency", target.concurrency),
        ("weight", target.weight),
    )
    yield from ((key, value) for key, value in others if value is not None)


def _agent(agent: AgentDraft) -> Iterator[str]:
    yield f"  {quoted(agent.name)}:"
    if agent.owner:
        yield f"    owner: {quoted(agent.owner)}"
    if agent.team:
        yield f"    team: {quoted(agent.team)}"
    if agent.keys:
        yield f"    keys: {_list(agent.keys)}"
    yield f"    models: {_list(agent.models)}"


def _budget(budget: BudgetDraft) -> Iterator[tuple[str, Scalar]]:
    yield "id", budget.id
    if budget.agent is not None:
        yield "agent", budget.agent
    yield "window", budget.window
    if budget.timezone != "UTC":
        yield "timezone", budget.timezone
    if budget.usd is not None:
        yield "usd", float(budget.usd)
    if budget.tokens is not None:
        yield "tokens", budget.tokens
    if budget.requests is not None:
        yield "requests", budget.requests
