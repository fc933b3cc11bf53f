"""A sound deployment, as `posture` sees it, and ways to make it less so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_proxy.config import load_config
from llm_proxy.policy.load import load_policy
from llm_proxy.posture.answers import Answer
from llm_proxy.posture.facts import Cut, Facts, KeyFile, KeysOf, Rebuilt, Records, Signed, ToolCalls, Users
from llm_proxy.posture.gathering import plain_secrets
from llm_proxy.posture.questions import posture
from llm_proxy.yamlpos import load_yaml

NOW_US = 1_790_000_000_000_000
HASH = "sha256:" + "ab" * 32
STARTERS = Path(__file__).parents[2] / "llm_proxy/config/starter/policies"


def _config() -> dict[str, Any]:
    people = ["ann", "ben"]
    return {
        "server": {"admin_token": HASH, "environment": "prod"},
        "agents": {
            "desk-bot": {
                "owner": "desk@example.com",
                "role": "support",
                "keys": ["sha256:" + "cd" * 32],
                "models": ["m"],
                "tools": ["ticket_*", "customer_*", "order_*", "web_*", "kb_*"],
            }
        },
        "models": {"m": {"targets": [{"id": "t", "provider": "openai", "api_key": "${UPSTREAM}"}]}},
        "budgets": [{"id": "daily", "agent": "*", "window": "day", "usd": 5}],
        "operators": [
            {
                "id": f"{name}@example.com",
                "groups": ["support-leads", "finance"],
                "roles": ["approver"],
                "token": "sha256:" + name.encode().hex() * 10 + "0000",
            }
            for name in people
        ],
        "prices": {"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}},
        "telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"},
    }


def _policy() -> dict[str, Any]:
    """The starter policy of a support desk, whose approvers are the operators above."""
    told: Any = load_yaml(STARTERS / "support-desk.yaml").data
    for entry in told["approvals"].values():
        entry["approvers"] = ["group:support-leads"]
    return told


RECORDS = Records(
    calls=40,
    newest_us=NOW_US - 5_000_000,
    keys={"desk-bot": KeysOf(active=1)},
    tools=ToolCalls(
        total=10,
        digests=10,
        released=8,
        answered=8,
        results=8,
        verdicts=10,
        judged=10,
        inputs=10,
        changes=3,
        effects=3,
    ),
    users=Users(runs=2, verified=2),
    cut=Cut(agent_id="desk-bot", at_us=NOW_US, streams=1, seconds=0.4),
    signed=Signed(checkpoints=3, newest_us=NOW_US - 30_000_000, unsigned=4, records=90),
)
REBUILT = Rebuilt(
    run_id="r", agent_id="desk-bot", calls=3, requests=3, replies=3, bytes=900, rows=9, masked=0
)

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def facts_of(folder: Path, change: Change | None = None) -> Facts:
    config, policy = _config(), _policy()
    if change is not None:
        change(config, policy)
    if policy:
        policy["tests"] = []
        (folder / "policy.yaml").write_text(json.dumps(policy))
        config["policy"] = str(folder / "policy.yaml")
    path = folder / "proxy.yaml"
    path.write_text(json.dumps(config))
    loaded = load_config(path, {"UPSTREAM": "sk-upstream-0123456789"})
    file = load_policy(loaded.policy) if loaded.policy else None
    return Facts(
        config=loaded,
        policy=file.file if file else None,
        policy_sha256=file.sha256 if file else "",
        plain=plain_secrets(path),
        key_file=KeyFile(path="signing-key.pem", exists=True),
        store="store.db",
        records=RECORDS,
        rebuilt=REBUILT,
        now_us=NOW_US,
    )


def answers_to(facts: Facts) -> dict[str, Answer]:
    return {answer.id: answer for answer in posture(facts).answers}


def bot(config: dict[str, Any], **more: Any) -> None:
    """Changes what the config says of the agent."""
    config["agents"]["desk-bot"] |= more
