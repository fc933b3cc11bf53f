"""`llm-proxy init`: a commented starter proxy.yaml and policy.yaml, and keys to begin with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from llm_proxy.config.starter import PLAIN, STARTERS, Starter, StarterExists, write_starter
from llm_proxy.identity.keyring import new_key
from llm_proxy.yamlpos import hint


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write them.")] = Path(),
    *,
    policy: Annotated[
        str, typer.Option(metavar="NAME", help=f"A policy for a kind of agent: {', '.join(STARTERS)}.")
    ] = "",
) -> None:
    """Write a commented starter proxy.yaml and policy.yaml. Overwrites nothing."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    starter = STARTERS.get(policy) if policy else PLAIN
    if starter is None:
        errors.print(f"--policy: there is no {policy!r}{hint(policy, list(STARTERS))}")
        raise typer.Exit(2)
    key, tokens = new_key(), [new_key() for _ in starter.approvers]
    try:
        paths = write_starter(directory, key, starter, tokens)
    except StarterExists as refusal:
        for path in refusal.existing:
            errors.print(f"{path}: exists already, and init overwrites nothing: move it or name another DIR")
        raise typer.Exit(2) from refusal
    except OSError as error:
        errors.print(f"{error.filename or directory}: can't be written: {error.strerror or error}")
        raise typer.Exit(2) from error
    _report(paths, key, starter, tokens)


def _report(paths: tuple[Path, ...], key: str, starter: Starter, tokens: Sequence[str]) -> None:
    out = Console(soft_wrap=True, highlight=False, markup=False)
    variable = starter.key_variable
    out.print(f"Wrote {' and '.join(map(str, paths))}.")
    out.print()
    out.print(f"Key of agent {starter.agent} (shown once; the file holds only its hash):")
    out.print(Text(f"  export {variable}={key}", style="bold"))
    out.print()
    for approver, token in zip(starter.approvers, tokens, strict=True):
        out.print(f"Token of {approver}, who may approve (shown once too; never for an agent):")
        out.print(Text(f"  export LLM_PROXY_TOKEN={token}", style="bold"))
        out.print()
    config = paths[0]
    option = "" if config == Path("proxy.yaml") else f" --config {shlex.quote(str(config))}"
    out.print("Next:")
    for command in (
        "export OPENAI_API_KEY=…",
        f"llm-proxy check{option}",
        f"llm-proxy serve{option}",
        f'curl http://127.0.0.1:4000/v1/chat/completions -H "Authorization: Bearer ${variable}" \\',
        "  -H 'content-type: application/json' \\",
        """  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'""",
    ):
        out.print(Text(f"  {command}", style="bold"))
    out.print()
    out.print("Set LLM_PROXY_ADMIN_TOKEN before `serve` to open /admin and the console.")
