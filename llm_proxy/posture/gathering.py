"""Gathers the facts: of the config and its files, the policy, and the store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, make_url

from llm_proxy import wiring
from llm_proxy.config import Config
from llm_proxy.policy.load import load_policy
from llm_proxy.posture.facts import Cut, Facts, KeyFile
from llm_proxy.posture.figures import figures
from llm_proxy.posture.rebuilding import rebuilt
from llm_proxy.records.blobs import DAY_US
from llm_proxy.signing import open_to_others
from llm_proxy.yamlpos import DocumentErrors, KeyPath, Yaml, dotted, load_yaml

_SECRETS = frozenset({"token", "admin_token", "api_key", "api_keys", "secret", "client_secret"})
_ELSEWHERE = re.compile(r"(sha256:|file:|\$\{[^}:]+(:-)?\}$)")
"""What a secret begins with that doesn't stand in the config itself."""


def gather(
    config: Config,
    connection: Connection | None,
    now_us: int,
    *,
    days: int = 30,
    store_problem: str = "",
    cut: Cut | None = None,
    run: tuple[str, str] | None = None,
) -> Facts:
    """Blocks. `connection` is None where nothing was ever recorded, or the store can't be read.

    `cut` is a freeze that was measured just now; `run` (agent, id) the one to put together again. Raises
    `PolicyErrors` for a policy that can't be used, and what the database raises.
    """
    policy = load_policy(config.policy) if config.policy is not None else None
    since = now_us - days * DAY_US
    found = figures(connection, since, now_us) if connection is not None else None
    if found is not None and cut is not None:
        found = replace(found, cut=cut)
    return Facts(
        config=config,
        policy=policy.file if policy else None,
        policy_sha256=policy.sha256 if policy else "",
        plain=plain_secrets(config.path),
        key_file=_key_file(wiring.key_path(config)),
        store=_place(config),
        store_problem=store_problem,
        records=found,
        rebuilt=rebuilt(connection, since, run) if connection is not None else None,
        now_us=now_us,
        days=days,
    )


def plain_secrets(path: Path) -> tuple[str, ...]:
    """The keys of the file whose secret stands there as it is. Nothing of a secret is returned."""
    try:
        data = load_yaml(path).data
    except DocumentErrors:
        return ()
    return tuple([dotted(at) for at, text in _secrets(data, ()) if text and not _ELSEWHERE.match(text)])


def _secrets(value: Yaml, at: KeyPath, *, secret: bool = False) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            of_agent = key == "keys" and len(at) == 2 and at[0] == "agents"
            yield from _secrets(item, (*at, key), secret=of_agent or key in _SECRETS)
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _secrets(item, (*at, n), secret=secret)
    elif secret and isinstance(value, str):
        yield at, value.strip()


def _place(config: Config) -> str:
    """Where the store is, without anything secret."""
    url = make_url(config.store.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"postgresql://{url.host or '(socket)'}/{url.database or ''}"


def _key_file(path: Path) -> KeyFile:
    try:
        return KeyFile(path=str(path), exists=True, open_to_others=open_to_others(path))
    except OSError:
        return KeyFile(path=str(path), exists=False)
