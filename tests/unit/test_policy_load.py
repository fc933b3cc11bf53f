"""Everything wrong with a policy file is found at load, with its place."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from llm_proxy.policy import names
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.conditions import VARIABLES
from llm_proxy.policy.load import PolicyErrors, load_policy, read_policy

DOCS = Path(__file__).parents[2] / "docs" / "policy.md"

BASE = """\
policy: {id: p, version: 1}
destinations: {api: {hosts: [api.example.com]}}
tools:
  crm_read:
    effect: read
    tier: autonomous
    result: {sensitivity: confidential, trust: internal}
    args: {type: object, additionalProperties: false, properties: {id: {type: string}}}
  web_fetch:
    {effect: read, sink: external, tier: autonomous, check: {url: api}, result: {}, args: {type: object}}
"""


def read(extra: str = "", base: str = BASE, groups: set[str] | None = None) -> Policy:
    return read_policy((base + extra).encode(), "p.yaml", groups)


def refusal(extra: str = "", base: str = BASE) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        read(extra, base)
    return [str(issue) for issue in caught.value.issues]


def said(policy: Policy) -> str:
    return "\n".join(str(warning) for warning in policy.warnings)


def documented() -> str:
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_the_documented_file_loads_and_passes_its_own_tests() -> None:
    policy = read_policy(documented().encode(), "policy.yaml", {"support-leads", "finance"})
    report = run_cases(policy)
    assert [result for result in report.results if not result.passed] == []
    assert policy.file.on_deny == "replan"


def test_the_documentation_names_every_rule_and_variable() -> None:
    text = DOCS.read_text("utf-8")
    policy = read_policy(documented().encode(), "policy.yaml")
    assert sorted(name for name in VARIABLES if f"`{name}`" not in text) == []
    table = text.partition("## Names of built-in rules\n")[2].partition("\n## ")[0]
    rows = "".join([line.split("|")[1] for line in table.splitlines() if line.startswith("|")])
    own = names.own_rules(policy.file)
    wanted = {*names.BUILT_IN, "check:<arg>", "sum:<id>", "budget:<id>"}
    wanted |= {name for name in names.possible(policy.file) if not name.startswith(("check:", "sum:"))}
    assert sorted(name for name in wanted.difference(own) if f"`{name}`" not in rows) == []


def test_version_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(BASE.encode())
    assert load_policy(path).sha256 == hashlib.sha256(BASE.encode()).hexdigest()


def test_a_missing_file_is_an_issue(tmp_path: Path) -> None:
    with pytest.raises(PolicyErrors, match="can't be read"):
        load_policy(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("extra", "issue"),
    [
        ("rulez: []\n", "p.yaml:11:1: rulez: unknown key: did you mean 'rules'?"),
        ("on_deny: replce\n", "must be 'replan', 'replace' or 'error': did you mean 'replace'?"),
        (
            "rules:\n  - {id: a, then: deny, when: 'tool.snk == \"x\"'}\n",
            "p.yaml:12:36: rules[0].when: undeclared reference to 'tool.snk': did you mean 'tool.sink'?",
        ),
        (
            "rules:\n  - id: a\n    then: deny\n    when: |\n      env == 'x' &&\n      run.sensitivty > 1\n",
            "p.yaml:16:10: rules[0].when: undeclared reference to 'run.sensitivty'",
        ),
        (
            "rules:\n  - {id: a, then: deny, when: run.sensitivity > label.top}\n",
            "undeclared reference to 'label.top'",
        ),
        ("rules:\n  - {id: a, then: deny, when: run.calls}\n", "must be true or false, and is of type int"),
        ("rules:\n  - {id: a, then: deny, when: args.x}\n", "must be true or false, and is of type dyn"),
        ("rules:\n  - {id: a, then: deny, when: 'tool.sink == 1'}\n", "found no matching overload"),
        ("rules:\n  - {id: a, then: deny, when: '1 +'}\n", "Syntax error"),
        (
            "rules:\n  - {id: a, then: deny, when: 'args.x.map(i, args.x.map(j, j)).size() > 1'}\n",
            "map or filter inside another macro",
        ),
        (
            "rules:\n  - {id: a, then: deny, when: '" + "(" * 200 + "true" + ")" * 200 + "'}\n",
            "recursion limit",
        ),
        ("rules:\n  - {id: a, then: deny, when: '" + "!" * 5000 + "true'}\n", "at most 4096 characters"),
        (
            "rules:\n  - {id: a, then: deny, when: 'true'}\n  - {id: a, then: deny, when: 'true'}\n",
            "p.yaml:13:6: rules[1].id: 'a' is used twice",
        ),
        ("rules:\n  - {id: schema, then: deny, when: 'true'}\n", "'schema' is the name of a built-in rule"),
        (
            "rules:\n  - {id: 'check:x', then: deny, when: 'true'}\n",
            "rules[0].id: String should match pattern",
        ),
        (
            "sequence:\n  - {id: s, after: {tool: crm_red}, forbid: {tool: 'w*'}}\n",
            "did you mean 'crm_read'?",
        ),
        ("sequence:\n  - {id: s, after: {}, forbid: {tool: 'w*'}}\n", "needs tool or effect"),
        ("sequence:\n  - {id: s, aftr: {tool: 'c*'}, forbid: {tool: 'w*'}}\n", "did you mean 'after'?"),
        ("sequence:\n  - {id: s, before: {tool: 'c*'}, require: {}}\n", "needs either an event"),
        (
            "caps: {sums: [{id: s, tool: nope, field: a, per: run, max: 1}]}\n",
            "'nope', which is not registered",
        ),
        ("caps: {sums: [{id: s, tool: crm_read, field: a, per: week, max: 1}]}\n", "must be 'run'"),
        ("caps: {run: {calls: -1}}\n", "caps.run.calls: must be greater than or equal to 0"),
        ("labels: {sensitivity: [public, public]}\n", "names a label twice"),
        ("labels: {sensitivity: []}\n", "at least one label"),
        ("labels: {sensitivity: [a, b]}\n", "'confidential' is not one of labels.sensitivity"),
        ("freeze: {on: {denials_per_run: 0}}\n", "freeze.on.denials_per_run: must be greater"),
        ("redact: [{id: r, in: [record], with: token}]\n", "exactly one of field and detect"),
        ("redact: [{id: r, in: [recrod], detect: iban, with: token}]\n", "did you mean 'record'?"),
        (
            "redact: [{id: r, in: [reply], detect: iban, with: token, sensitivity: top}]\n",
            "'top' is not one of labels.sensitivity",
        ),
        ("tests: [{name: t, call: {tool: nope}, expect: {decision: deny}}]\n", "'nope' is not registered"),
        (
            "tests: [{name: t, call: {tool: crm_read}, expect: {decision: deny, rule: shcema}}]\n",
            "no rule is called 'shcema': did you mean 'schema'?",
        ),
        ("input: {max_depth: 100000}\n", "input.max_depth: must be less than or equal to 64"),
        ("approvals: {default: {approvers: []}}\n", "approvals.default.approvers"),
    ],
)
def test_refused(extra: str, issue: str) -> None:
    assert issue in "\n".join(refusal(extra))


@pytest.mark.parametrize(
    ("old", "new", "issue"),
    [
        (
            "check: {url: api}",
            "check: {url: apj}",
            "names the destination 'apj', which does not exist: did you",
        ),
        ("check: {url: api}", "check: {url: 'scope:'}", "names no scope"),
        ("check: {url: api}", "clearance: top", "tools.web_fetch.clearance: 'top' is not one of"),
        ("check: {url: api}", "approval: money", "names the approval 'money', which does not exist"),
        ("check: {url: api}", "roles: []", "tools.web_fetch.roles: Tuple should have at least 1 item"),
        ("tier: autonomous, check", "tier: autonomus, check", "did you mean 'autonomous'?"),
        ("{effect: read, sink", "{sink", "p.yaml:9:3: tools.web_fetch.effect: is required"),
        (
            "    effect: read\n",
            "    effect: read\n    check: {uid: api}\n",
            "can never hold: args allows no 'uid'",
        ),
        (
            "    effect: read\n",
            "    effect: read\n    identity_args: [ix]\n",
            "args allows no 'ix'; known here: id",
        ),
        (
            "{type: string}",
            "{type: strin}",
            "p.yaml:8:73: tools.crm_read.args.properties.id.type: is no valid",
        ),
        ("{type: string}", "{pattern: '(?=x)'}", "tools.crm_read.args.properties.id.pattern"),
        ("{type: string}", "{$ref: 'http://127.0.0.1:1/x'}", "refers outside the schema"),
        ("{type: string}", "{$ref: 'file:///etc/hosts'}", "refers outside the schema"),
        ("{type: string}", "{$ref: '#/$defs/none'}", "does not exist"),
        ("hosts: [api.example.com]", "hosts: ['https://x']", "destinations.api: hosts holds 'https://x'"),
        ("hosts: [api.example.com]", "hosts: [a.b], email_domains: [a.b]", "mixes email_domains"),
        ("hosts: [api.example.com]", "schemes: [https]", "needs email_domains, hosts or path_prefixes"),
        ("policy: {id: p, version: 1}", "policy: {id: p}", "policy.version: is required"),
    ],
)
def test_refused_entries(old: str, new: str, issue: str) -> None:
    assert old in BASE
    assert issue in "\n".join(refusal(base=BASE.replace(old, new, 1)))


def test_all_mistakes_are_reported_together_in_file_order() -> None:
    found = refusal(
        "rules:\n  - {id: a, then: deny, when: tool.snk}\n  - {id: b, then: deny, when: 'true' }\n"
        "sequence:\n  - {id: b, after: {tool: x}, forbid: {tool: y}}\n"
    )
    assert [line.split(":")[1] for line in found] == ["12", "15", "15", "15"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("on_deny: error\nrules: [{id: a, then: ask, when: 'true'}]\n", "denied as no-approver"),
        ("approvals: {default: {approvers: ['group:g']}}\n", "the group 'g' has no members"),
        (
            "approvals: {other: {approvers: ['group:g']}}\nrules: [{id: a, then: ask, when: 'true'}]\n",
            "denied as no-approver",
        ),
        (
            "sequence: [{id: s, after: {tool: 'x_*'}, forbid: {tool: 'w*'}}]\n",
            "'x_*' matches no registered tool",
        ),
        (
            "caps: {sums: [{id: s, tool: 'x*', field: a, per: run, max: 1}]}\n",
            "'x*' matches no registered tool",
        ),
    ],
)
def test_warnings(extra: str, words: str) -> None:
    assert words in said(read(extra, groups=set()))


def test_tool_warnings() -> None:
    policy = read(
        base="policy: {id: p, version: 1}\ntools:\n  a: {effect: read}\n"
        "  b: {effect: write, tier: pre-approved}\n"
        "  c: {effect: write, args: {type: object, properties: {x: {maxLenght: 3}}}}\n"
    )
    text = said(policy)
    assert "tools.a: declares no result" in text
    assert "tools.b.tier: a pre-approved tool without args always asks" in text
    assert "tools.c.args.properties.x.maxLenght: is no JSON Schema keyword and has no effect: did you" in text


def test_a_quiet_policy_has_no_warnings() -> None:
    assert read("on_deny: replace\n", groups=set()).warnings == ()


def test_cases_report_failures_and_rules_never_hit() -> None:
    report = run_cases(
        read(
            "rules:\n"
            "  - {id: exfil, then: deny,\n"
            "     when: 'tool.sink == \"external\" && run.sensitivity > tool.clearance'}\n"
            "  - {id: dead, then: deny, when: 'run.calls > 100'}\n"
            "  - {id: broken, then: deny, when: 'tool.name == \"crm_read\" && args.none == 1'}\n"
            "tests:\n"
            "  - {name: good, history: [crm_read],\n"
            "     call: {tool: web_fetch, args: {url: 'https://api.example.com'}},\n"
            "     expect: {decision: deny, rule: exfil}}\n"
            "  - {name: bad, call: {tool: web_fetch, args: {url: 'https://api.example.com'}},\n"
            "     expect: {decision: deny}}\n"
            "  - {name: error, call: {tool: crm_read}, expect: {decision: deny, rule: rule-error}}\n"
        )
    )
    assert [(result.name, result.passed) for result in report.results] == [
        ("good", True),
        ("bad", False),
        ("error", True),
    ]
    assert report.results[1].got == "allow by tier:autonomous"
    assert report.never_hit == ("dead", "broken")
    assert not report.passed
