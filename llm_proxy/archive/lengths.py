"""How long the newest replies were, so that a restart needn't learn it anew."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from llm_proxy.records.tables import calls
from llm_proxy.records.view import Status
from routing.targets import AS_ASKED

MOST_ROWS = 20_000
"""Calls that are looked at, whatever they were."""


def newest_lengths(
    connection: Connection, targets: Mapping[str, tuple[str, str]]
) -> list[tuple[str, str, int]]:
    """(provider, model, output tokens) of the whole replies among the newest calls, the oldest first.

    `targets` has the provider and the model of each, by its id; a model `*` is the one that was asked for.
    """
    newest = (
        select(calls.c.started_us, calls.c.target, calls.c.model, calls.c.output_tokens, calls.c.status)
        .order_by(calls.c.started_us.desc())
        .limit(MOST_ROWS)
        .subquery()
    )
    whole = (newest.c.status == Status.OK.value, newest.c.output_tokens > 0)
    query = (
        select(newest.c.target, newest.c.model, newest.c.output_tokens)
        .where(*whole, newest.c.target.in_(list(targets)))
        .order_by(newest.c.started_us)
    )
    found: list[tuple[str, str, int]] = []
    for target, asked, tokens in connection.execute(query):
        provider, model = targets[target]
        found.append((provider, asked if model == AS_ASKED else model, tokens))
    return found
