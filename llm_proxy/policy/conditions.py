"""CEL conditions: declared variables, compilation with positions, and evaluation that fails towards no.

Every field (`tool.sink`) is a declared variable of its own, so a misspelt one is an error at load. Language:
https://github.com/google/cel-spec/blob/master/doc/langdef.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias, cast

from cel_expr_python import cel

from llm_proxy.policy.canonical import Json
from llm_proxy.policy.checked import read_tree
from llm_proxy.policy.costs import too_costly
from llm_proxy.yamlpos import hint

Fact: TypeAlias = "Json | datetime | dict[str, list[str]] | list[str]"
Facts: TypeAlias = Mapping[str, Fact]
"""Values by variable name."""


class _Value(Protocol):
    def type(self) -> object: ...
    def value(self) -> object: ...


class _Expression(Protocol):
    def eval(self, *, activation: object) -> _Value: ...
    def return_type(self) -> object: ...
    def serialize(self) -> bytes: ...


class _Env(Protocol):
    def compile(self, text: str) -> _Expression: ...
    def Activation(self, values: Mapping[str, object]) -> object: ...


class _Types(Protocol):
    BOOL: object
    INT: object
    STRING: object
    DYN: object
    TIMESTAMP: object

    def List(self, item: object) -> object: ...
    def Map(self, key: object, value: object) -> object: ...


class _Cel(Protocol):
    Type: _Types

    def NewEnv(self, *, variables: Mapping[str, object]) -> _Env: ...


_CEL = cast("_Cel", cel)
_T = _CEL.Type
_STRINGS = _T.List(_T.STRING)

VARIABLES: Mapping[str, object] = {
    "agent.id": _T.STRING,
    "agent.team": _T.STRING,
    "agent.role": _T.STRING,
    "agent.owner": _T.STRING,
    "agent.scopes": _T.Map(_T.STRING, _STRINGS),
    "user.id": _T.STRING,
    "user.role": _T.STRING,
    "user.clearance": _T.INT,
    "user.verified": _T.BOOL,
    "run.sensitivity": _T.INT,
    "run.untrusted": _T.BOOL,
    "run.labels": _STRINGS,
    "run.calls": _T.INT,
    "run.writes": _T.INT,
    "run.irreversible": _T.INT,
    "run.age_s": _T.INT,
    "run.role_at_start": _T.STRING,
    "run.depth": _T.INT,
    "tool.name": _T.STRING,
    "tool.registered": _T.BOOL,
    "tool.owner": _T.STRING,
    "tool.risk": _T.STRING,
    "tool.effect": _T.STRING,
    "tool.sink": _T.STRING,
    "tool.clearance": _T.INT,
    "tool.tier": _T.STRING,
    "tool.roles": _STRINGS,
    "tool.sensitivity": _T.INT,
    "tool.trust": _T.STRING,
    "tool.identity_args": _STRINGS,
    "tool.approval": _T.STRING,
    "args": _T.Map(_T.STRING, _T.DYN),
    "call.identity_from_user": _T.BOOL,
    "call.siblings": _T.INT,
    "call.repeated": _T.INT,
    "env": _T.STRING,
    "now": _T.TIMESTAMP,
}
"""What a condition may name, besides `label.NAME` for each sensitivity label."""


class Mistake(NamedTuple):
    """Line and column count from 1, within the condition's own text."""

    line: int
    column: int
    message: str


class ConditionError(Exception):
    """A condition that can't be used; at least one mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(mistake.message for mistake in mistakes))


class Outcome(NamedTuple):
    """`failure` says why a condition has no answer; empty where `hit` is one."""

    hit: bool
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One compiled condition; stateless, usable from any thread."""

    expression: _Expression

    def evaluate(self, activation: object) -> Outcome:
        """Its answer. Errors come back from CEL as values, or raise when the iteration budget runs out."""
        try:
            value = self.expression.eval(activation=activation)
            kind, answer = value.type(), value.value()
        except Exception as error:  # noqa: BLE001 (whatever the native engine raises must end in a denial)
            return Outcome(False, f"the engine raised {type(error).__name__}")
        if kind == _T.BOOL and isinstance(answer, bool):
            return Outcome(answer)
        return Outcome(False, _explain(str(answer)))


class Conditions:
    """Compiles the conditions of one policy; `labels` are its sensitivity labels, lowest first."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._ranks: dict[str, Fact] = {f"label.{name}": rank for rank, name in enumerate(labels)}
        variables = {**VARIABLES, **dict.fromkeys(self._ranks, _T.INT)}
        self._names = sorted(variables)
        self._env = _CEL.NewEnv(variables=variables)

    def compile(self, text: str) -> Condition:
        """Raises ConditionError for wrong syntax, unknown names, wrong types and what costs too much."""
        try:
            expression = self._env.compile(text)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ConditionError(self._mistakes(str(error))) from error
        if expression.return_type() != _T.BOOL:
            found = str(getattr(expression.return_type(), "name", lambda: "something else")()).lower()
            raise ConditionError([Mistake(1, 1, f"must be true or false, and is of type {found}")])
        if costly := [Mistake(1, 1, why) for why in too_costly(read_tree(expression.serialize()))]:
            raise ConditionError(costly)
        return Condition(expression)

    def activation(self, facts: Facts) -> object:
        """What conditions are evaluated against: build one a decision. `facts` holds every variable."""
        return self._env.Activation({**self._ranks, **facts})

    def _mistakes(self, text: str) -> list[Mistake]:
        found = re.findall(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)", text)
        mistakes = [Mistake(max(1, int(n)), max(1, int(c)), self._tidy(why)) for n, c, why in found]
        return mistakes or [Mistake(1, 1, self._tidy(text.partition("\n")[0]))]

    def _tidy(self, message: str) -> str:
        message = message.replace(" (in container '')", "").removesuffix(" [INVALID_ARGUMENT]")
        unknown = re.match(r"undeclared reference to '([^']*)'", message)
        return f"{message}{self._suggest(unknown[1])}" if unknown else message

    def _suggest(self, name: str) -> str:
        siblings = [known for known in self._names if known.startswith(name.partition(".")[0] + ".")]
        return hint(name, siblings or self._names)


def _explain(error: str) -> str:
    """A runtime error without the values it may quote."""
    match error.partition(":")[0]:
        case "NOT_FOUND":
            return "a key that it reads is missing (guard it with has())"
        case "UNKNOWN" | "INVALID_ARGUMENT":
            return "a value has a type that it can't work with"
        case "OUT_OF_RANGE":
            return "a number left its range"
        case _:
            return "its answer is neither true nor false"
