"""What only two places of a policy file together can get wrong: names, labels, arguments and ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from llm_proxy.policy import names
from llm_proxy.policy.args_schema import property_names
from llm_proxy.policy.destinations import SCOPE
from llm_proxy.policy.schema import Ban, Case, PolicyFile, Tool
from llm_proxy.yamlpos import Document, Issue, KeyPath, hint


def errors(document: Document, file: PolicyFile) -> Iterator[Issue]:
    """Everything that keeps the file from being used."""
    for path, message in _errors(file):
        yield document.issue(path, message)


_Found: TypeAlias = Iterator[tuple[KeyPath, str]]


def _errors(file: PolicyFile) -> _Found:
    yield from _labels(file)
    for name, tool in file.tools.items():
        yield from _tool_errors(file, name, tool)
    for path, glob in tool_globs(file):
        if "*" not in glob and glob not in file.tools:
            yield path, f"names the tool {glob!r}, which is not registered{hint(glob, list(file.tools))}"
    yield from _ids(file)
    for n, case in enumerate(file.tests):
        yield from _case_errors(file, ("tests", n), case)


def _labels(file: PolicyFile) -> _Found:
    named: list[tuple[KeyPath, str | None]] = []
    for name, tool in file.tools.items():
        named.append((("tools", name, "clearance"), tool.clearance))
        named.append((("tools", name, "result", "sensitivity"), tool.result.sensitivity))
    named += [(("redact", n, "sensitivity"), entry.sensitivity) for n, entry in enumerate(file.redact)]
    for n, case in enumerate(file.tests):
        named.append((("tests", n, "user", "clearance"), case.user.clearance))
        named.append((("tests", n, "run", "sensitivity"), case.run.sensitivity))
    known = file.labels.sensitivity
    for path, label in named:
        if label is not None and label not in known:
            yield path, f"{label!r} is not one of labels.sensitivity{hint(label, known)}"


def _tool_errors(file: PolicyFile, name: str, tool: Tool) -> _Found:
    at: KeyPath = ("tools", name)
    closed = property_names(tool.args)
    for argument, where in tool.check.items():
        if where.startswith(SCOPE):
            if where == SCOPE:
                yield (*at, "check", argument), "names no scope: write scope:NAME"
        elif where not in file.destinations:
            tip = hint(where, list(file.destinations))
            yield (*at, "check", argument), f"names the destination {where!r}, which does not exist{tip}"
        if closed is not None and argument not in closed:
            yield (*at, "check", argument), f"can never hold: args allows no {argument!r}"
    for n, argument in enumerate(tool.identity_args):
        if closed is not None and argument not in closed:
            yield (*at, "identity_args", n), f"args allows no {argument!r}{hint(argument, sorted(closed))}"
    if tool.approval is not None and tool.approval not in file.approvals:
        tip = hint(tool.approval, list(file.approvals))
        yield (*at, "approval"), f"names the approval {tool.approval!r}, which does not exist{tip}"


def tool_globs(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every place that names tools by a glob."""
    for n, step in enumerate(file.sequence):
        parts = (
            (("after", step.after), ("forbid", step.forbid))
            if isinstance(step, Ban)
            else (("before", step.before), ("require", step.require))
        )
        for key, part in parts:
            if part.tool is not None:
                yield ("sequence", n, key, "tool"), part.tool
    for n, entry in enumerate(file.caps.sums):
        yield ("caps", "sums", n, "tool"), entry.tool
    for n, entry in enumerate(file.redact):
        yield ("redact", n, "tool"), entry.tool


def _ids(file: PolicyFile) -> _Found:
    verdicts: list[tuple[KeyPath, str]] = [(("rules", n, "id"), rule.id) for n, rule in enumerate(file.rules)]
    verdicts += [(("sequence", n, "id"), step.id) for n, step in enumerate(file.sequence)]
    sums: list[tuple[KeyPath, str]] = [
        (("caps", "sums", n, "id"), entry.id) for n, entry in enumerate(file.caps.sums)
    ]
    redactions: list[tuple[KeyPath, str]] = [
        (("redact", n, "id"), entry.id) for n, entry in enumerate(file.redact)
    ]
    cases: list[tuple[KeyPath, str]] = [
        (("tests", n, "name"), case.name) for n, case in enumerate(file.tests)
    ]
    for group in (verdicts, sums, redactions, cases):
        seen = Counter[str]()
        for path, identity in group:
            seen[identity] += 1
            if seen[identity] == 2:
                yield path, f"{identity!r} is used twice: names must be unique"
    for path, identity in verdicts:
        if identity in names.BUILT_IN:
            yield path, f"{identity!r} is the name of a built-in rule: choose another"


def _case_errors(file: PolicyFile, at: KeyPath, case: Case) -> _Found:
    used: list[tuple[KeyPath, str]] = [
        ((*at, "history", n), call if isinstance(call, str) else call.tool)
        for n, call in enumerate(case.history)
    ]
    used += [((*at, "siblings", n, "tool"), call.tool) for n, call in enumerate(case.siblings)]
    if case.expect.rule != names.UNKNOWN_TOOL:
        used.append(((*at, "call", "tool"), case.call.tool))
    for path, tool in used:
        if tool not in file.tools:
            yield path, f"the tool {tool!r} is not registered{hint(tool, list(file.tools))}"
    known = sorted(names.possible(file))
    if case.expect.rule is not None and case.expect.rule not in known:
        yield (
            (*at, "expect", "rule"),
            f"no rule is called {case.expect.rule!r}{hint(case.expect.rule, known)}",
        )
    sums = [entry.id for entry in file.caps.sums]
    for identity in case.run.sums:
        if identity not in sums:
            yield (*at, "run", "sums", identity), f"no sum has this id{hint(identity, sums)}"
