"""What the tests in a policy file say of it, each with its place."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.compiled import Policy
from llm_proxy.yamlpos import Document, load_yaml


class CaseTested(msgspec.Struct, frozen=True):
    """One case: `expected` and `got` read like `deny by exfil`."""

    name: str
    line: int
    passed: bool
    expected: str
    got: str


class NeverHit(msgspec.Struct, frozen=True):
    """A rule or a sequence that no case hits."""

    rule: str
    line: int


class Tested(msgspec.Struct, frozen=True):
    file: str
    passed: bool
    cases: tuple[CaseTested, ...]
    never_hit: tuple[NeverHit, ...]


def told_cases(policy: Policy, path: Path) -> Tested:
    """Runs the cases of `policy`, which was read from `path`. Raises `DocumentErrors` where that changed."""
    report, document = run_cases(policy), load_yaml(path)
    cases = tuple(
        CaseTested(one.name, _line(document, "tests", n), one.passed, one.expected, one.got)
        for n, one in enumerate(report.results)
    )
    never = tuple(NeverHit(rule, _where(document, policy, rule)) for rule in report.never_hit)
    return Tested(str(path), report.passed, cases, never)


def _where(document: Document, policy: Policy, rule: str) -> int:
    for key, entries in (("rules", policy.file.rules), ("sequence", policy.file.sequence)):
        for n, entry in enumerate(entries):
            if entry.id == rule:
                return _line(document, key, n)
    return 1


def _line(document: Document, key: str, n: int) -> int:
    return document.position((key, n)).line
