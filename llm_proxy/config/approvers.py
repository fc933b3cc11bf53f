"""Which people of the config may decide an approval: by id or `group:NAME`, and by their role."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from llm_proxy.config.choices import Role
from llm_proxy.config.schema import OperatorConfig

GROUP = "group:"
DECIDERS = frozenset({Role.ADMIN, Role.APPROVER})


def may_approve(operator: OperatorConfig, approvers: Collection[str]) -> bool:
    """Whether the operator is among `approvers`, as a policy's approval lists them, and has the role."""
    named = operator.id in approvers or any(f"{GROUP}{group}" in approvers for group in operator.groups)
    return named and bool(DECIDERS.intersection(operator.roles))


def who_may_approve(operators: Iterable[OperatorConfig], approvers: Collection[str]) -> tuple[str, ...]:
    """The ids of those who may, in the config's order."""
    return tuple(operator.id for operator in operators if may_approve(operator, approvers))
