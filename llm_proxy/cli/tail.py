"""`llm-proxy runs tail`: what agents do, as it is committed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from llm_proxy.admin.story import Story
from llm_proxy.archive.calls import call_views
from llm_proxy.archive.tail import Happening, Position, follow, now_position
from llm_proxy.cli.committing import Readings
from llm_proxy.cli.entry import call_entry
from llm_proxy.cli.options import AgentOption, ConfigOption
from llm_proxy.cli.output import console
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import line, moment, money
from llm_proxy.config import Config
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.ids import now_us
from llm_proxy.records.view import CallView

EVERY_S = 0.5
_ENDED = {RecordKind.CALL_CLOSED.value, RecordKind.CALL_REFUSED.value}
_STYLES = {
    RecordKind.CALL_REFUSED.value: "red",
    RecordKind.VERDICTS.value: "magenta",
    RecordKind.BUDGET_REACHED.value: "yellow",
    RecordKind.APPROVAL_REQUESTED.value: "yellow",
    RecordKind.AGENT_FROZEN.value: "red",
    RecordKind.RUN_ENDED.value: "yellow",
}


def tail(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", show_default=False)] = None,
    agent: AgentOption = None,
    config: ConfigOption = None,
    *,
    content: Annotated[
        bool, typer.Option("--content", help="Show each call that ended in full; that is recorded.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="End after N events.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines on standard output.")] = False,
) -> None:
    """Follow runs live: calls as they begin and end, verdicts, approvals, money. Ctrl-C ends it.

    Without --content it shows no prompt, no reply and no arguments.
    """
    loaded = load(config)
    position: Position | None = None
    left = limit if limit is not None else sys.maxsize
    try:
        with Readings(loaded) as readings:
            while left > 0:
                found: list[Happening] = []
                with reading(loaded) as connection:
                    if connection is not None and position is None:
                        position = now_position(connection, now_us())
                    elif connection is not None and position is not None:
                        found, position = follow(connection, position, now_us(), run=run, agent=agent)
                    elif position is None:
                        position = Position(now_us(), {})
                _print(loaded, found[:left], readings if content else None, as_json=as_json)
                left -= len(found)
                if left > 0:
                    time.sleep(EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _print(loaded: Config, found: Sequence[Happening], readings: Readings | None, *, as_json: bool) -> None:
    """With content where `readings` record it."""
    ended = [one.call_id for one in found if one.kind in _ENDED]
    views = _views(loaded, ended, readings) if readings is not None else {}
    out = console()
    for one in found:
        view = views.get(one.call_id) if one.kind in _ENDED else None
        if as_json:
            told = msgspec.structs.asdict(one)
            if view is not None:
                told["reply"] = view.reply
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        else:
            out.print(_line(one), soft_wrap=True)
            if view is not None:
                out.print(call_entry(Story().tell(view), 1, view.started_us))
    sys.stdout.flush()


def _views(loaded: Config, ids: list[str], readings: Readings) -> dict[str, CallView]:
    if not ids:
        return {}
    with reading(loaded) as connection:
        views = call_views(connection, ids) if connection is not None else []
    readings.shown("runs tail", calls=[view.id for view in views])
    return {view.id: view for view in views}


def _line(one: Happening) -> Text:
    text = Text.assemble(
        (moment(one.at_us), "dim"),
        f"  {one.kind:<18} ",
        (line(one.agent_id), "bold"),
        (f" {line(one.run_id)}" if one.run_id else "", "cyan"),
        "  ",
        (line(one.told), _STYLES.get(one.kind, "")),
    )
    if one.micro_usd:
        text.append(f"  {money(one.micro_usd)}", "cyan")
    return text.append(f"  {one.call_id}", "dim") if one.call_id else text
