"""What a policy file may hold but deserves a word: dead globs, weak entries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeAlias

from llm_proxy.policy import names
from llm_proxy.policy.args_schema import doubtful_keywords
from llm_proxy.policy.crosscheck import tool_globs
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Ban, Decision, Effect, PolicyFile, Tier, Tool
from llm_proxy.yamlpos import Document, Issue, KeyPath

GROUP = "group:"

_Found: TypeAlias = Iterator[tuple[KeyPath, str]]


def warnings(document: Document, file: PolicyFile, groups: Collection[str] | None) -> Iterator[Issue]:
    """One issue per warning. `groups` as in `load_policy`."""
    for path, message in _warnings(file, groups):
        yield document.issue(path, message)


def _warnings(file: PolicyFile, groups: Collection[str] | None) -> _Found:
    for path, glob in tool_globs(file):
        if "*" in glob and not any(matches(glob, name) for name in file.tools):
            yield path, f"{glob!r} matches no registered tool"
    for name, tool in file.tools.items():
        yield from _tool_warnings(name, tool)
    yield from _approvers(file, groups)


def _tool_warnings(name: str, tool: Tool) -> _Found:
    at: KeyPath = ("tools", name)
    if tool.tier is Tier.PRE_APPROVED and tool.args is None:
        yield (*at, "tier"), "a pre-approved tool without args always asks: declare its arguments"
    if tool.effect is Effect.READ and "result" not in tool.model_fields_set:
        yield at, "declares no result: what it returns counts as untrusted and of the lowest sensitivity"
    if tool.args is not None:
        for path, message in doubtful_keywords(tool.args):
            yield (*at, "args", *path), message


def _may_ask(file: PolicyFile) -> Iterator[bool]:
    posture = file.posture
    yield posture.fallback is Decision.ASK
    yield posture.default is Decision.ASK and any(tool.tier is None for tool in file.tools.values())
    yield any(tool.tier in (Tier.HUMAN_APPROVAL, Tier.PRE_APPROVED) for tool in file.tools.values())
    yield any(rule.then is Decision.ASK for rule in file.rules)
    yield any(
        (step.then if isinstance(step, Ban) else step.otherwise) is Decision.ASK for step in file.sequence
    )
    yield any(entry.then is Decision.ASK for entry in file.caps.sums)
    yield file.freeze is not None and file.freeze.then is Decision.ASK


def _approvers(file: PolicyFile, groups: Collection[str] | None) -> _Found:
    by_default = not file.tools or any(tool.approval is None for tool in file.tools.values())
    if by_default and "default" not in file.approvals and any(_may_ask(file)):
        key: KeyPath = ("approvals",) if file.approvals else ()
        denied = f"what they would ask is denied as {names.NO_APPROVER}"
        yield key, f"approvals have no 'default' for tools without an approval of their own: {denied}"
    if groups is None:
        return
    for name, approval in file.approvals.items():
        for n, approver in enumerate(approval.approvers):
            group = approver.removeprefix(GROUP)
            if approver.startswith(GROUP) and group not in groups:
                yield (
                    ("approvals", name, "approvers", n),
                    f"the group {group!r} has no members: nobody can approve",
                )
