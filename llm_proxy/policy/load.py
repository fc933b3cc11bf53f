"""Loading a policy file: everything that can be wrong with it is found here, before it judges anything."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from llm_proxy.policy.advice import warnings
from llm_proxy.policy.args_schema import ArgsSchema, SchemaProblem, compile_schema
from llm_proxy.policy.compiled import Policy, RuleEntry, ToolEntry, tool_facts
from llm_proxy.policy.conditions import ConditionError, Conditions
from llm_proxy.policy.crosscheck import errors
from llm_proxy.policy.destinations import SCOPE, Check, compile_check, compile_scope_check
from llm_proxy.policy.schema import PolicyFile, Tool
from llm_proxy.yamlpos import Document, DocumentErrors, Issue, issues_from_validation, load_yaml


class PolicyErrors(DocumentErrors):
    """A policy file that can't be used, with every reason found."""


def load_policy(path: Path, groups: Collection[str] | None = None) -> Policy:
    """The policy in the file at `path`. Raises PolicyErrors.

    `groups` are the approver groups that have members; None leaves approvers unchecked.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise PolicyErrors([Issue(str(path), 1, 1, "", f"can't be read: {why}")]) from error
    return read_policy(raw, str(path), groups)


def read_policy(raw: bytes, file: str, groups: Collection[str] | None = None) -> Policy:
    """The policy in `raw`; `file` names it in issues. Raises PolicyErrors."""
    try:
        document = load_yaml(raw, file)
    except DocumentErrors as error:
        raise PolicyErrors(error.issues) from error
    try:
        parsed = PolicyFile.model_validate(document.data)
    except ValidationError as error:
        raise PolicyErrors(issues_from_validation(error, document, PolicyFile)) from error
    return _Compiler(document, parsed).policy(hashlib.sha256(raw).hexdigest(), groups)


class _Compiler:
    """Compiles one parsed file, collecting issues."""

    def __init__(self, document: Document, file: PolicyFile) -> None:
        self._document = document
        self._file = file
        self._issues = list(errors(document, file))
        self._conditions = Conditions(file.labels.sensitivity)

    def policy(self, sha256: str, groups: Collection[str] | None) -> Policy:
        destinations = self._destinations()
        schemas = {name: self._schema(name, tool) for name, tool in self._file.tools.items()}
        rules = self._rules()
        if self._issues:
            raise PolicyErrors(sorted(self._issues, key=lambda issue: (issue.line, issue.column)))
        tools = {
            name: ToolEntry(
                name=name,
                spec=tool,
                schema=schemas[name],
                checks=tuple((arg, _check(where, destinations)) for arg, where in tool.check.items()),
                facts=tool_facts(name, tool, self._file),
            )
            for name, tool in self._file.tools.items()
        }
        ranks = [self._file.rank(tool.result.sensitivity) for tool in self._file.tools.values()]
        return Policy(
            file=self._file,
            sha256=sha256,
            warnings=tuple(warnings(self._document, self._file, groups)),
            tools=tools,
            rules=rules,
            conditions=self._conditions,
            reads_identity=any("identity_from_user" in rule.when for rule in self._file.rules),
            unknown_sensitivity=max(ranks, default=self._file.highest),
        )

    def _destinations(self) -> dict[str, Check]:
        checks: dict[str, Check] = {}
        for name, destination in self._file.destinations.items():
            try:
                checks[name] = compile_check(destination)
            except ValueError as error:
                self._issues.append(self._document.issue(("destinations", name), str(error)))
        return checks

    def _schema(self, name: str, tool: Tool) -> ArgsSchema | None:
        if tool.args is None:
            return None
        try:
            return compile_schema(tool.args)
        except SchemaProblem as problem:
            path = ("tools", name, "args", *problem.path)
            self._issues.append(self._document.issue(path, str(problem)))
            return None

    def _rules(self) -> tuple[RuleEntry, ...]:
        compiled: list[RuleEntry] = []
        for n, rule in enumerate(self._file.rules):
            path = ("rules", n, "when")
            try:
                compiled.append(RuleEntry(rule, self._conditions.compile(rule.when)))
            except ConditionError as error:
                for line, column, message in error.mistakes:
                    at = self._document.inside(path, line, column)
                    self._issues.append(self._document.issue(path, message, at))
        return tuple(compiled)


def _check(where: str, destinations: dict[str, Check]) -> Check:
    if where.startswith(SCOPE):
        return compile_scope_check(where.removeprefix(SCOPE))
    return destinations[where]
