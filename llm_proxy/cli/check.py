"""`llm-proxy check`: validates the config and its policy, and says what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from llm_proxy.config import Config, ConfigErrors, find_config, load_config
from llm_proxy.config.choices import Role
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import load_policy
from llm_proxy.pricing.book import PriceBook
from llm_proxy.scripted.script import ScriptError, load_script
from llm_proxy.yamlpos import DocumentErrors, Issue


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `config` and `policy` are None where they could not be loaded, or there is none."""

    errors: tuple[Issue, ...] = ()
    warnings: tuple[Issue, ...] = ()
    config: Config | None = None
    policy: Policy | None = None


def check(
    config: Annotated[Path | None, typer.Option("--config", help="The config file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate config and policy: every error with file:line and what to do. Exit 0 if sound, else 2."""
    report = examine(config, os.environ)
    if as_json:
        typer.echo(_json(report))
    else:
        _print(report)
    if report.errors:
        raise typer.Exit(2)


def examine(option: Path | None, environ: Mapping[str, str]) -> Report:
    """Loads the config and the policy that it names; never raises for what is wrong in them."""
    try:
        config = load_config(find_config(option, environ), environ, PriceBook({}).find)
    except ConfigErrors as refused:
        return Report(errors=refused.issues)
    scripts = tuple(_script_errors(config))
    if config.policy is None:
        return Report(scripts, config.warnings, config)
    try:
        policy = load_policy(config.policy, approver_groups(config))
    except DocumentErrors as refused:
        return Report((*scripts, *refused.issues), config.warnings, config)
    return Report(scripts, (*config.warnings, *policy.warnings), config, policy)


def _script_errors(config: Config) -> Iterator[Issue]:
    targets = (target for model in config.models.values() for target in model.targets)
    for path in dict.fromkeys(target.script for target in targets if target.script):
        try:
            load_script(path)
        except ScriptError as error:
            yield Issue(str(path), 1, 1, "", str(error).removeprefix(f"{path}: "))


def approver_groups(config: Config) -> frozenset[str]:
    """The groups that have at least one operator who may approve."""
    return frozenset(
        group
        for operator in config.operators
        if Role.APPROVER in operator.roles or Role.ADMIN in operator.roles
        for group in operator.groups
    )


def _json(report: Report) -> str:
    shown = {
        "ok": not report.errors,
        "errors": [asdict(issue) for issue in report.errors],
        "warnings": [asdict(issue) for issue in report.warnings],
    }
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _print(report: Report) -> None:
    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for issue in report.errors:
        notes.print(f"error: {issue}", style="red")
    for issue in report.warnings:
        notes.print(f"warning: {issue}", style="yellow")
    if report.errors:
        notes.print(f"{_count(len(report.errors), 'error')}: nothing was started or changed.")
    elif report.config:
        _summary(report.config, report.policy, len(report.warnings))


def _summary(config: Config, policy: Policy | None, warnings: int) -> None:
    out = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table.grid(padding=(0, 2))
    for name, text in _rows(config, policy):
        table.add_row(name, text)
    out.print(table)
    out.print(f"{config.path} is valid, with {_count(warnings, 'warning') if warnings else 'no warnings'}.")


def _rows(config: Config, policy: Policy | None) -> Iterator[tuple[str, str]]:
    yield "config", f"{config.path}, sha256 {config.config_sha256[:12]}"
    targets = sum(len(model.targets) for model in config.models.values())
    yield "models", f"{_listed(config.models)}, {_count(targets, 'target')}"
    yield "agents", _listed(config.agents)
    yield "budgets", _listed([budget.id for budget in config.budgets])
    if policy is None:
        yield "policy", "none: tool calls are recorded and none is judged"
        return
    header = policy.file.policy
    yield "policy", f"{header.id} version {header.version}, {header.mode}, sha256 {policy.sha256[:12]}"
    counted = ((policy.tools, "tool"), (policy.rules, "rule"), (policy.file.tests, "test"))
    yield "", ", ".join(_count(len(entries), word) for entries, word in counted)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _listed(names: Mapping[str, object] | list[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return f"{len(shown)} ({', '.join(shown[:5])}{more})" if shown else "none"
