"""A LiteLLM proxy config, and the keys of its database if they are given, to the text of a proxy.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePath

from llm_proxy.importing.catalogue import Catalogue
from llm_proxy.importing.deployments import Deployment, read_deployments
from llm_proxy.importing.drafts import AgentDraft, ModelDraft, ProxyDraft
from llm_proxy.importing.fallbacks import read_onward, usable_aliases, with_fallbacks
from llm_proxy.importing.keys import Imported, KeyImport
from llm_proxy.importing.models import ModelMaker, Wanted, with_aliases
from llm_proxy.importing.prices import PriceTable
from llm_proxy.importing.report import Counts, Notes, Row, Verdict, count
from llm_proxy.importing.routing import Settings, read_routing
from llm_proxy.importing.settings import Whole, read_whole
from llm_proxy.importing.source import Field
from llm_proxy.importing.targets import TargetMaker
from llm_proxy.importing.why import why
from llm_proxy.importing.yaml_out import written
from llm_proxy.yamlpos import Document, DocumentErrors

SECTIONS = frozenset(
    {
        "model_list",
        "router_settings",
        "litellm_settings",
        "general_settings",
        "environment_variables",
        "include",
    }
)
_AFFINITY = (
    "`affinity: none` is as in LiteLLM. Leave it out, and the calls of a run stay on the target whose prompt "
    "cache they warmed."
)
_EMPTY = "is empty: nothing to carry over"


@dataclass(frozen=True, slots=True)
class Translation:
    """`text` is the proxy.yaml. The rows hold every leaf of what was given once, and what was added."""

    text: str
    rows: tuple[Row, ...]
    counts: Counts


def translate(config: Document, keys: Document | None, catalogue: Catalogue) -> Translation:
    """Never gives up on a field: what has no counterpart is left out, and in the report with its reason.

    Raises DocumentErrors where the config as a whole is not what LiteLLM reads.
    """
    root = Field(config.data)
    _check_shape(root, config)
    notes = Notes(config)
    key_notes = Notes(keys) if keys is not None else None
    whole = read_whole(root, notes)
    models, prices, groups = _models(root, keys, whole, catalogue, notes)
    imported = _agents(keys, key_notes, groups, whole)
    for name, field in root.at("environment_variables").entries():
        notes.approximate(field, f"environment: {name}", "set it where the proxy runs")
    rows = (*_finished(notes), *(_finished(key_notes) if key_notes else (_placeholder_row(config),)))
    draft = ProxyDraft(
        models=tuple(models),
        agents=imported.agents,
        budgets=((whole.budget,) if whole.budget else ()) + imported.budgets,
        prices=prices,
        server=whole.server,
        translation=whole.translation,
        otlp_endpoint=whole.otlp_endpoint,
    )
    counts = count(rows)
    comments, rest = _comments(models, rows)
    return Translation(written(draft, _header(config, counts, models, rest), comments), rows, counts)


def _check_shape(root: Field, config: Document) -> None:
    if not isinstance(root.value, dict) or not SECTIONS & root.value.keys():
        message = "is no config of LiteLLM's proxy: name the file that holds model_list"
        raise DocumentErrors([config.issue((), message)])
    for key in sorted(SECTIONS - {"include"}):
        field = root.get(key)
        shape = list if key == "model_list" else dict
        if field is not None and not isinstance(field.value, shape):
            kind = "list" if shape is list else "mapping"
            raise DocumentErrors([config.issue((key,), f"must be a {kind}: correct it and import again")])


def _models(
    root: Field, keys: Document | None, whole: Whole, catalogue: Catalogue, notes: Notes
) -> tuple[list[ModelDraft], Mapping[str, Mapping[str, float]], Mapping[str, tuple[str, ...]]]:
    """The models, their prices, and the models of each access group."""
    settings = Settings(root, notes)
    routing, onward = read_routing(settings, notes), read_onward(settings)
    targets = TargetMaker(notes, hard_limits=routing.hard_limits, concurrency=routing.concurrency)
    prices = PriceTable(notes)
    deployments = read_deployments(root, catalogue, notes)
    wanted = onward.wanted
    wanted = Wanted(wanted.alone, (*wanted.all, *_named_by(keys)))
    models = ModelMaker(routing, catalogue, notes, targets, prices).make(deployments, wanted)
    aliases = dict(usable_aliases(onward, [model.name for model in models], notes))
    models = with_fallbacks(with_aliases(models, aliases, targets), onward, aliases, notes)
    models = [replace(model, drains=whole.drains) for model in models]
    _tell_info(deployments, notes)
    return models, prices.rows, _access_groups(deployments, keys, notes)


def _named_by(keys: Document | None) -> Iterable[str]:
    listed = Field(keys.data if keys else None).at("keys").items()
    return [model.text for key in listed for model in key.at("models").items() if model.text]


def _tell_info(deployments: Iterable[Deployment], notes: Notes) -> None:
    for deployment in deployments:
        mode = deployment.info.get("mode")
        if mode is not None and mode.text in ("chat", "completion", "embedding", "responses"):
            notes.exact(mode, note="a model serves what it is asked for, by path")
        elif mode is not None:
            notes.approximate(mode, "", "such paths pass through to a target of provider openai as they are")


def _access_groups(
    deployments: Iterable[Deployment], keys: Document | None, notes: Notes
) -> Mapping[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for deployment in deployments:
        for group in deployment.info.at("access_groups").items():
            if group.text and keys is not None:
                groups[group.text] = (*groups.get(group.text, ()), deployment.name)
                notes.approximate(
                    group, "agents.*.models", "agents whose keys name the group list its models"
                )
    return groups


def _agents(
    keys: Document | None,
    notes: Notes | None,
    groups: Mapping[str, tuple[str, ...]],
    whole: Whole,
) -> Imported:
    """The agents of the keys file; without one, an agent to begin with."""
    if keys is None or notes is None:
        return Imported((AgentDraft("agent", ("${AGENT_KEY}",), ("*",)),), ())
    return KeyImport(notes, groups, whole.timezone).make(Field(keys.data))


def _placeholder_row(config: Document) -> Row:
    note = "no --keys was given: one agent, which may call every model; set AGENT_KEY to its key"
    return Row(
        file=config.file,
        line=None,
        field="--keys",
        verdict=Verdict.APPROXIMATE,
        became="agents.agent",
        note=note,
    )


def _finished(notes: Notes) -> tuple[Row, ...]:
    for field in list(notes.unsaid()):
        if field.empty:
            notes.nothing(field, _EMPTY)
        else:
            notes.unsupported(field, why(field.path))
    return notes.rows()


def _comments(
    models: Sequence[ModelDraft], rows: Iterable[Row]
) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """What was left behind: of each model above it, the rest for the header."""
    owner = {origin: model.name for model in reversed(models) for origin in model.origin}
    found: dict[str, list[str]] = {}
    dropped = [row for row in rows if row.verdict is Verdict.UNSUPPORTED]
    for (name, note), alike in groupby(dropped, lambda row: (owner.get(_entry(row), ""), row.note)):
        fields = dict.fromkeys(_place(row) for row in alike)
        found.setdefault(name, []).append(f"Left out: {', '.join(fields)}: {note}.")
    return found, tuple(dict.fromkeys(found.pop("", [])))


def _entry(row: Row) -> str:
    """`model_list[0]` of what stands in it."""
    return row.field.partition("].")[0] + "]"


def _place(row: Row) -> str:
    """Line and field; of keys, of which there may be many, the field alone."""
    return f"{row.field} (line {row.line})" if row.line is not None else re.sub(r"\[\d+\]", "", row.field)


def _header(config: Document, counts: Counts, models: Iterable[ModelDraft], rest: Sequence[str]) -> list[str]:
    name = PurePath(config.file).name
    affinity = (_AFFINITY,) if any(model.affinity_off for model in models) else ()
    return [
        f"Made by `llm-proxy import litellm` from {name}.",
        f"Fields: {counts.exact} exact, {counts.approximate} approximate, {counts.unsupported} unsupported.",
        "Run `llm-proxy check --config` on this file once its environment variables are set.",
        *affinity,
        *(("", *rest) if rest else ()),
    ]
