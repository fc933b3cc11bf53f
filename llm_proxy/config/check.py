"""Checks that look at more than one entry of the config: errors first, then warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from llm_proxy.config.credentials import KeyDigest
from llm_proxy.config.downgrades import downgrade_errors
from llm_proxy.config.names import nearest, resolves
from llm_proxy.config.oidc import oidc_errors
from llm_proxy.config.places import LoadContext
from llm_proxy.config.schema import (
    AgentConfig,
    ConfigFile,
    OperatorConfig,
    ServerConfig,
)
from llm_proxy.config.shapes import Section
from llm_proxy.yamlpos import Document, Issue, KeyPath, Yaml, dotted

FALLBACKS = ("fallbacks", "context_fallbacks", "content_fallbacks")

K = TypeVar("K", str, int)
S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries that hold credentials and are valid by themselves, under the paths where they stand.

    So one bad entry does not hide what is wrong between the others.
    """

    server: ServerConfig
    agents: Mapping[str, AgentConfig]
    operators: Mapping[int, OperatorConfig]

    @classmethod
    def of(cls, config: ConfigFile) -> Entries:
        return cls(config.server, config.agents, dict(enumerate(config.operators)))

    @classmethod
    def salvaged(cls, data: Mapping[str, Yaml], context: LoadContext) -> Entries:
        """From a file that is not valid as a whole."""
        server = _valid(ServerConfig, [("server", data.get("server"))], context)
        return cls(
            server.get("server", ServerConfig()),
            _valid(AgentConfig, _named(data.get("agents")), context),
            _valid(OperatorConfig, _numbered(data.get("operators")), context),
        )


def _valid(kind: type[S], entries: Iterable[tuple[K, Yaml]], context: LoadContext) -> dict[K, S]:
    found: dict[K, S] = {}
    for key, value in entries:
        try:
            found[key] = kind.model_validate(value, context=context)
        except ValidationError:
            continue  # told already, when the whole file was validated
    return found


def _named(value: Yaml) -> list[tuple[str, Yaml]]:
    return list(value.items()) if isinstance(value, dict) else []


def _numbered(value: Yaml) -> list[tuple[int, Yaml]]:
    return list(enumerate(value)) if isinstance(value, list) else []


def errors_between(entries: Entries, document: Document) -> Iterator[Issue]:
    """What makes the entries unusable together. Ids and names are looked at in entries with errors too."""
    data = document.data if isinstance(document.data, dict) else {}
    models = _named(data.get("models"))
    targets = (found for name, model in models for found in _ids(model, "targets", ("models", name)))
    yield from _twice(document, targets, "give every target of the file its own id")
    yield from _twice(document, _ids(data, "budgets"), "rename one budget")
    yield from _twice(document, _ids(data, "operators"), "keep one entry")
    yield from _twice(document, _ids(data, "webhooks"), "rename one webhook")
    yield from _links(document, data)
    yield from oidc_errors(document, data)
    yield from _shared_keys(document, entries)
    names = tuple(name for name, _ in models)
    default = data.get("default_model")
    if isinstance(default, str) and not resolves(default, names):
        yield document.issue(("default_model",), f"no model is named {default!r}: {nearest(default, names)}")
    yield from _issuers(document, data.get("identity"), tuple(name for name, _ in _named(data.get("agents"))))
    yield from downgrade_errors(document, _numbered(data.get("budgets")), names)
    for name, model in models:
        for kind in FALLBACKS:
            for n, fallback in _numbered(model.get(kind) if isinstance(model, dict) else None):
                if isinstance(fallback, str) and not resolves(fallback, names):
                    message = f"no model is named {fallback!r}: {nearest(fallback, names)}"
                    yield document.issue(("models", name, kind, n), message)


def _issuers(document: Document, identity: Yaml, agents: tuple[str, ...]) -> Iterator[Issue]:
    found = _ids(identity, "issuers", ("identity",), "issuer")
    yield from _twice(document, found, "keep one entry, with every audience in it")
    for n, issuer in _numbered(identity.get("issuers") if isinstance(identity, dict) else None):
        mapped = _named(issuer.get("agents")) if isinstance(issuer, dict) else []
        for value, agent in mapped:
            if isinstance(agent, str) and agent not in agents:
                message = f"no agent is named {agent!r}: {nearest(agent, agents)}"
                yield document.issue(("identity", "issuers", n, "agents", value), message)


def _links(document: Document, data: Mapping[str, Yaml]) -> Iterator[Issue]:
    """Whom webhooks carry links for."""
    operators = tuple(name for _, name in _ids(dict(data), "operators"))
    server = data.get("server")
    public = server.get("public_url") if isinstance(server, dict) else None
    for n, webhook in _numbered(data.get("webhooks")):
        wanted = _numbered(webhook.get("links_for") if isinstance(webhook, dict) else None)
        if wanted and public is None:
            message = "needs server.public_url: links begin with the address where people reach the proxy"
            yield document.issue(("webhooks", n, "links_for"), message)
        for at, name in wanted:
            if isinstance(name, str) and name not in operators:
                message = f"no operator is named {name!r}: {nearest(name, operators)}"
                yield document.issue(("webhooks", n, "links_for", at), message)


def _ids(parent: Yaml, key: str, under: KeyPath = (), name: str = "id") -> Iterator[tuple[KeyPath, str]]:
    """The ids of the list at `key`, with their paths; of entries that are otherwise wrong too."""
    for n, entry in _numbered(parent.get(key) if isinstance(parent, dict) else None):
        found = entry.get(name) if isinstance(entry, dict) else None
        if isinstance(found, str):
            yield (*under, key, n, name), found


def _twice(document: Document, ids: Iterable[tuple[KeyPath, str]], advice: str) -> Iterator[Issue]:
    first: dict[str, KeyPath] = {}
    for path, text in ids:
        before = first.setdefault(text, path)
        if before != path:
            line = document.position(before).line
            yield document.issue(path, f"{text!r} is taken by {dotted(before)} in line {line}: {advice}")


def _shared_keys(document: Document, entries: Entries) -> Iterator[Issue]:
    first: dict[KeyDigest, KeyPath] = {}
    for path, key in credentials(entries):
        before = first.setdefault(key, path)
        if before != path:
            line = document.position(before).line
            yield document.issue(
                path, f"is the same credential as {dotted(before)} in line {line}: give each its own"
            )


def credentials(entries: Entries) -> Iterator[tuple[KeyPath, KeyDigest]]:
    """Every credential that callers may present, with where it stands."""
    if entries.server.admin_token:
        yield ("server", "admin_token"), entries.server.admin_token
    for name, agent in entries.agents.items():
        for n, key in enumerate(agent.keys):
            yield ("agents", name, "keys", n), key
    for n, operator in entries.operators.items():
        if operator.token:
            yield ("operators", n, "token"), operator.token
