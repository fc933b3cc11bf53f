"""Which models budgets put in place of others: each exists, and no chain of them leads back to its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from llm_proxy.config.names import matches, nearest, resolves
from llm_proxy.yamlpos import Document, Issue, KeyPath, Yaml


class _Step(NamedTuple):
    """A budget that asks for model `to`, of models that match `of` (None or `*`: of any)."""

    path: KeyPath
    id: str
    of: str | None
    to: str


def downgrade_errors(
    document: Document, budgets: Sequence[tuple[int, Yaml]], models: Sequence[str]
) -> Iterator[Issue]:
    """Also of budgets that are otherwise wrong."""
    steps = [step for n, entry in budgets if isinstance(entry, dict) and (step := _step(n, entry))]
    for step in steps:
        if not resolves(step.to, models):
            message = f"no model is named {step.to!r}: {nearest(step.to, models)}"
            yield document.issue(step.path, message)
        elif step.of == step.to:
            yield document.issue(
                step.path, f"is the very model that the budget is for, {step.of!r}: name a cheaper one"
            )
    told: set[str] = set()
    for step in steps:
        ring = _ring(step, steps)
        if ring and told.isdisjoint(other.id for other in ring):
            told.update(other.id for other in ring)
            chain = " → ".join([*(other.of or "*" for other in ring), ring[0].of or "*"])
            yield document.issue(step.path, f"leads back to where it began ({chain}): break the circle")


def _step(n: int, entry: Mapping[str, Yaml]) -> _Step | None:
    choice = entry.get("on_exceed")
    to = choice.get("downgrade") if isinstance(choice, dict) else None
    if not isinstance(to, str):
        return None
    of, id_ = entry.get("model"), entry.get("id")
    told = of if isinstance(of, str) and of != "*" else None
    return _Step(("budgets", n, "on_exceed", "downgrade"), str(id_), told, to)


def _ring(start: _Step, steps: Sequence[_Step]) -> list[_Step]:
    """The shortest way from a budget back to itself, over budgets that are for models by name.

    One for any model is no part of a ring: it doesn't look at the model, and steps in once for each call.
    """
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for step in steps:
            if step.of is None or way[-1].of is None or not matches(step.of, way[-1].to):
                continue
            if step is start and len(way) > 1:
                return way
            if step is not start and step.id not in seen:
                seen.add(step.id)
                ways.append([*way, step])
    return []
