"""`llm-proxy keys`: issues, rotates, lists and revokes what agents authenticate with."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.keys import KeyRotation, KeyWish
from llm_proxy.admin.reading import KeyLine, key_lines
from llm_proxy.cli.change import changing
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption, UrlOption
from llm_proxy.cli.output import Column, complain, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import moment
from llm_proxy.records.ids import now_us

app = typer.Typer(help="Agents' keys: stored as hashes, shown once.", no_args_is_help=True)

_COLUMNS = (
    Column("key", "bold", whole=True),
    Column("agent"),
    Column("run"),
    Column("status"),
    Column("issued"),
    Column("expires"),
)
_STATUS_STYLE = {"active": "green", "expired": "yellow", "revoked": "red"}


@app.command()
def issue(
    agent: Annotated[str, typer.Argument(metavar="AGENT")],
    ttl: Annotated[str | None, typer.Option(help="How long it is good for: 90s, 15m, 1h, 7d.")] = None,
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Good for this run only.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Issue a key. It stands alone on standard output, this one time; the store holds only its hash.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        issued = change.issue(KeyWish(agent_id=agent, ttl=ttl, run_id=run))
    if as_json:
        print_json(issued)
        return
    until = f"until {moment(issued.expires_us)}" if issued.expires_us else "until it is revoked"
    of_run = f", for run {issued.run_id} only," if issued.run_id else ""
    complain(f"Key {issued.id} of agent {issued.agent_id}{of_run} is good {until}. It is shown this once.")
    typer.echo(issued.key)


@app.command()
def rotate(
    agent: Annotated[str, typer.Argument(metavar="AGENT")],
    overlap: Annotated[
        str, typer.Option(help="How long the agent's other issued keys stay good: 0s, 15m, 1h, 7d.")
    ] = "1h",
    ttl: Annotated[
        str | None, typer.Option(help="How long the new key is good for: 90s, 15m, 1h, 7d.")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Issue a new key, and end every other issued key of the agent once the overlap is over.

    The new key stands alone on standard output. Needs $LLM_PROXY_TOKEN: the token of an operator with role
    admin, or the admin token.
    """
    with changing(config, url) as change:
        rotated = change.rotate(KeyRotation(agent_id=agent, overlap=overlap, ttl=ttl))
    if as_json:
        print_json(rotated)
        return
    until = f" until {moment(rotated.expires_us)}" if rotated.expires_us else ""
    complain(f"Key {rotated.id} of agent {rotated.agent_id} is good{until}. It is shown this once.")
    complain(f"The other issued keys end at {moment(rotated.others_expire_us)}, where they don't before.")
    if rotated.unchanged:
        complain(
            f"Not changed: {', '.join(rotated.unchanged)}, in the config. Take them out there, and restart."
        )
    typer.echo(rotated.key)


@app.command("list")
def list_(
    agent: AgentOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Issued keys, the newest first, then those of the config."""
    loaded = load(config)
    with reading(loaded) as connection:
        lines = key_lines(loaded, connection, now_us(), limit, agent=agent)
    if as_json:
        print_json(lines)
    else:
        key_rows(lines)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Revoke an issued key; within a second no running proxy takes it, and its open calls have ended.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        revoked = change.revoke(key_id)
    if as_json:
        print_json(revoked)
    else:
        typer.echo(
            f"Key {revoked.id} of agent {revoked.agent_id} is revoked since {moment(revoked.revoked_us)}."
        )


def key_rows(lines: list[KeyLine]) -> None:
    """The keys as a table."""
    print_table(_COLUMNS, map(_row, lines), "No keys: `llm-proxy keys issue AGENT` makes one.")


def _row(key: KeyLine) -> list[str | Text]:
    from_config = key.source == "config"
    return [
        key.id,
        key.agent_id,
        key.run_id,
        Text(key.status, _STATUS_STYLE.get(key.status, "")),
        "in the config" if from_config else moment(key.created_us),
        moment(key.expires_us) or "never",
    ]
