"""`llm-proxy calls search`: full text over what agents were told and what models said."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.searched import SearchHit, SearchShown, no_records, parts, searched
from llm_proxy.admin.when import when
from llm_proxy.archive.search import SearchWish
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, RunOption, only
from llm_proxy.cli.output import complain, console, print_json
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import clean, line, moment
from llm_proxy.config import Config
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us, uuid7

CATCH_UP_S = 5.0
SECONDS = 20.0


def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help='Words, "an exact phrase", a beginning*, -word.')
    ],
    agent: AgentOption = None,
    run: RunOption = None,
    tool: Annotated[str | None, only("--tool", "TOOL", "Calls with this tool; tool calls of it.")] = None,
    decision: Annotated[
        str | None, only("--decision", "allow|deny|ask", "Where a verdict was that; ask: a person.")
    ] = None,
    rule: Annotated[str | None, only("--rule", "RULE", "Where this rule of the policy spoke.")] = None,
    user: Annotated[str | None, only("--user", "USER", "On behalf of this user.")] = None,
    model: Annotated[str | None, only("--model", "MODEL", "Where this model was asked for.")] = None,
    since: Annotated[str | None, only("--since", "TIME", "Calls that began since: 24h, 7d, a date.")] = None,
    until: Annotated[str | None, only("--until", "TIME", "Calls that began before.")] = None,
    within: Annotated[
        str, only("--in", "KINDS", "Only in these, by commas: prompt, reply, reasoning, tool.")
    ] = "",
    before: Annotated[int | None, only("--before", "N", "Go on behind an earlier answer.")] = None,
    config: ConfigOption = None,
    *,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000, metavar="N", help="Show at most N.")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """Full text over prompts, replies, reasoning, tool calls and their results; the newest first.

    That content was read, and what was looked for, is recorded first.
    """
    loaded = load(config)
    catch_up(loaded)
    with reading(loaded) as connection:
        found, calls = no_records(), list[str]()
        if connection is not None:
            wish = SearchWish(
                text=text,
                agent=agent,
                run=run,
                user=user,
                model=model,
                tool=tool,
                decision=decision,
                rule=rule,
                within=parts(within),
                since_us=when(since, now_us()),
                until_us=when(until, now_us()),
                before=before,
                limit=limit,
                seconds=SECONDS,
            )
            found, calls = searched(connection, wish)
    if connection is not None:
        note_shown(loaded, "calls search", calls=calls, words=text)
    if as_json:
        print_json(found)
    else:
        _print(found)


def catch_up(loaded: Config) -> None:
    """Indexes what is missing, where no proxy does. The answer tells what is missing all the same."""
    with reading(loaded) as connection:
        if connection is None:
            return
    engine = open_engine(loaded.store.get_secret_value())
    try:
        Indexer(engine, uuid7(now_us()), now_us).catch_up(CATCH_UP_S)
    except (SQLAlchemyError, OSError) as error:
        complain(f"The search index can't be brought up to date: {type(error).__name__}")
    finally:
        engine.dispose()


def _print(found: SearchShown) -> None:
    out = console()
    if not found.hits:
        complain("Nothing was found.")
    for hit in found.hits:
        out.print(Group(_heading(hit), _snippet(hit), Text()), soft_wrap=True)
    if not found.complete:
        complain(f"Time ran out: everything since {found.back_to} was looked at.")
    if found.before is not None:
        complain(f"There may be more: go on with --before {found.before}")
    if found.unindexed:
        since = found.unindexed_since
        complain(f"{found.unindexed:,} records, from {since} on, are not indexed yet: ask again shortly.")


def _heading(hit: SearchHit) -> Text:
    kind = hit.kind.replace("_", " ")
    text = Text.assemble((hit.call_id, "bold"), f"  {moment(hit.at_us)}  ", (kind, "magenta"))
    if hit.tool:
        text.append(f" {line(hit.tool)}", "bold")
    return text.append(f"  {line(hit.agent_id)}  run {line(hit.run_id)}", "dim")


def _snippet(hit: SearchHit) -> Text:
    if hit.snippet is None:
        return Text("  its text is no longer kept", "yellow")
    text, at = Text("  "), 0
    for start, end in hit.marks:
        text.append(_in_line(hit.snippet[at:start])).append(_in_line(hit.snippet[start:end]), "bold red")
        at = end
    return text.append(_in_line(hit.snippet[at:]))


def _in_line(text: str) -> str:
    return " ".join(clean(part) for part in text.splitlines()) if "\n" in text else clean(text)
