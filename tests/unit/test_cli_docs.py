"""Every command keeps the promises that all commands make, and has its line in docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from llm_proxy.cli.main import app

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
WITHOUT_CONFIG = {"init", "demo", "scripted", "import litellm"}


def _commands(group: TyperGroup, before: str = "") -> Iterator[tuple[str, set[str], str]]:
    """(name, options, help) of each command."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{before}{name} ")
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            options = {option for parameter in command.params for option in parameter.opts}
            yield before + name, options, command.help or ""


def _all() -> list[tuple[str, set[str], str]]:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return list(_commands(root))


COMMANDS = _all()


@pytest.mark.parametrize(("name", "options", "told"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_every_command_keeps_the_promises_of_all(name: str, options: set[str], told: str) -> None:
    assert told
    assert f"`llm-proxy {name}" in DOCS
    assert ("--config" in options) == (name not in WITHOUT_CONFIG)
    if name in ("prices", "refusals", "routes", "spend", "budgets", "reconcile") or name.endswith(" list"):
        assert {"--json", "--limit"} <= options
    if name.endswith((" show", " status", " issue", " rotate", " revoke", " freeze", " thaw", " explain")):
        assert "--json" in options


def test_the_nouns_are_there() -> None:
    assert {name for name, _, _ in COMMANDS} == {
        *("init", "serve", "check", "demo", "refusals", "scripted"),
        *("db status", "db upgrade", "db vacuum"),
        *("agents list", "agents show", "agents freeze", "agents thaw"),
        *("keys issue", "keys list", "keys rotate", "keys revoke"),
        *("audit verify", "audit export", "audit checkpoints", "audit readings"),
        *("runs replay", "posture"),
        *("runs tail", "runs export", "calls search"),
        *("runs list", "runs show", "runs end", "calls list", "calls show", "import litellm"),
        *("routes", "routes explain", "prices", "spend", "budgets", "reconcile"),
        *(
            "policy test",
            "policy show",
            "policy tools",
            "policy explain",
            "policy simulate",
            "policy diff",
            "policy learn",
        ),
        *("webhooks list", "webhooks deliveries", "webhooks redeliver", "webhooks test"),
        *("telemetry status", "telemetry replay"),
        *("retention status", "retention run", "holds list", "holds place", "holds release"),
        *("approvals list", "approvals show", "approvals approve", "approvals deny", "runs checkpoint"),
    }
