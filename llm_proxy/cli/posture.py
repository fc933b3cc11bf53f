"""`llm-proxy posture`: is this deployment ready? Every question with its evidence, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from llm_proxy.admin.posture import MOST_DAYS, report
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.options import ConfigOption, JsonOption, UrlOption
from llm_proxy.cli.output import NOT_FOUND, WRONG_USE, console, print_json, stop
from llm_proxy.cli.posture_live import measure
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import line, moment
from llm_proxy.config import Config
from llm_proxy.policy.load import PolicyErrors
from llm_proxy.posture.answers import Answer, Posture, Verdict
from llm_proxy.posture.facts import Cut
from llm_proxy.records.ids import now_us

_STYLES = {
    Verdict.YES: "green",
    Verdict.PARTLY: "yellow",
    Verdict.NO: "bold red",
    Verdict.NOT_APPLICABLE: "dim",
}


def posture(
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS, help="Figures are of so many days.")] = 30,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="The run to put together again; else a late one.", show_default=False
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="AGENT", help="With --live: the test agent. Else: whose run.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="With --live: what the test agent asks.", show_default=False),
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    live: Annotated[
        bool,
        typer.Option("--live", help="Freeze a test agent in a running proxy, and measure how long it takes."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Is this deployment ready? Questions answered from config and records, with evidence and what to do.

    Exit status: 0 every answer is yes or n/a, 1 something is missing, 2 the config or policy can't be used.
    `--live` needs $LLM_PROXY_TOKEN, of a role admin, and `--agent`: an agent made for that.
    """
    loaded = load(config)
    cut: Cut | None = None
    if live:
        if agent is None:
            stop("--live freezes an agent: name one that was made for that with --agent.")
        cut = measure(loaded, url, agent, model)
    found = _report(loaded, days, run, None if live else agent, cut)
    if as_json:
        print_json(found)
    else:
        console().print(Gutter(_shown(found)))
    raise typer.Exit(0 if found.ready else NOT_FOUND)


def _report(config: Config, days: int, run: str | None, agent: str | None, cut: Cut | None) -> Posture:
    try:
        try:
            with reading(config) as connection:
                return report(config, connection, now_us(), days=days, run=run, agent=agent, cut=cut)
        except typer.Exit as ended:
            if ended.exit_code != WRONG_USE or run is not None:
                raise
            # The reason was said; that the store can't be read is an answer, too.
            return report(config, None, now_us(), days=days, store_problem="it can't be read, see above")
    except PolicyErrors as errors:
        stop("\n".join(map(str, errors.issues)))


def _shown(found: Posture) -> RenderableType:
    parts: list[RenderableType] = [
        Text.assemble(
            ("Posture ", "bold"),
            f"of {line(found.config)}",
            f", policy {line(found.policy)}" if found.policy else ", no policy",
            (f"  {moment(found.at_us)}", "dim"),
        ),
        Text(),
    ]
    for answer in found.answers:
        parts += _answer(answer)
    lacking = [a for a in found.answers if a.verdict in (Verdict.NO, Verdict.PARTLY)]
    if lacking:
        told = f"{len(lacking)} of {len(found.answers)} questions are not answered with yes: "
        parts.append(Text(told + ", ".join(a.id for a in lacking), "bold"))
    else:
        parts.append(Text("Every question is answered with yes, or does not apply.", "bold green"))
    return Group(*parts)


def _answer(answer: Answer) -> list[RenderableType]:
    head = Text.assemble((f"{answer.verdict.value:<7}", _STYLES[answer.verdict]), (answer.question, "bold"))
    head.append(f"  {answer.id}", "dim")
    parts: list[RenderableType] = [head]
    seen = ("·", "dim") if answer.verdict is Verdict.NOT_APPLICABLE else ("✓", "green")
    marked = ((*seen, answer.evidence), ("✗", "red", answer.missing), ("→", "cyan", answer.todo))
    parts += [
        Gutter(Text.assemble((f"{mark} ", style), line(text)), " " * 7)
        for mark, style, texts in marked
        for text in texts
    ]
    return [*parts, Text()]
