"""A policy, the calls it judges and what it knows of them: shared by the tests of the engine."""

from __future__ import annotations

import json
from dataclasses import replace

from llm_proxy.policy.canonical import digest
from llm_proxy.policy.context import AgentFacts, Context, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import read_policy
from llm_proxy.policy.schema import Decision, Effect
from llm_proxy.policy.verdict import Proposed, Verdict

ALLOW, ASK, DENY = Decision.ALLOW, Decision.ASK, Decision.DENY
NOW = 1_700_000_000.0

BASE = """\
policy: {id: p, version: 1}
posture: {default: ask, fallback: deny}
destinations:
  staff: {email_domains: [example.com]}
  api: {hosts: [api.example.com]}
tools:
  crm_read:
    {effect: read, tier: autonomous, roles: [support], result: {sensitivity: confidential, trust: internal},
     args: {type: object, additionalProperties: false, properties: {id: {type: string, maxLength: 8}}}}
  web_fetch:
    {effect: read, sink: external, clearance: public, tier: autonomous, check: {url: api},
     result: {sensitivity: public, trust: untrusted}, args: {type: object}}
  mail_send:
    {effect: irreversible, sink: external, clearance: internal, tier: pre-approved, check: {to: staff},
     identity_args: [to], args: {type: object}}
  note_add: {effect: write, tier: pre-approved}
  pay: {effect: write, tier: human-approval, args: {type: object}}
  wipe: {effect: irreversible, tier: prohibited}
  repo_read: {effect: read, tier: autonomous, check: {repo: "scope:repos"}}
  plain: {effect: write}
"""


def engine(extra: str = "", base: str = BASE) -> PolicyEngine:
    return PolicyEngine(read_policy((base + extra).encode(), "p.yaml"))


def context(**changes: object) -> Context:
    run = RunFacts(role_at_start="support", started_s=NOW - 60)
    agent = AgentFacts("bot", role="support", scopes={"repos": ("acme/web",)})
    return replace(Context(agent, UserFacts(), run, NOW), **changes)  # type: ignore[arg-type]


def ran(**changes: object) -> Context:
    return context(run=replace(context().run, **changes))  # type: ignore[arg-type]


def call(tool: str, args: object = None) -> Proposed:
    return Proposed("c", tool, args if isinstance(args, str) else json.dumps(args or {}))


def judge(tool: str, args: object = None, extra: str = "", at: Context | None = None) -> Verdict:
    return engine(extra).decide([call(tool, args)], at or context())[0]


def done(
    tool: str, effect: Effect, *, decision: Decision = ALLOW, completed: bool = True, ago: float = 1
) -> Done:
    return Done(tool, effect, decision, completed, digest(tool, {}), NOW - ago)
