"""How a run stands, as the command line shows it: what set it off, its envelope, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.text import Text

from llm_proxy.cli.text import line, moment, money
from llm_proxy.identity.lineage import ENVELOPE
from llm_proxy.runs.status import RunStatus, Standing, Use

STYLES = {
    RunStatus.OPEN: "green",
    RunStatus.EXHAUSTED: "red",
    RunStatus.EXPIRED: "yellow",
    RunStatus.ENDED: "yellow",
}


def standing_facts(stands: Standing) -> Iterator[tuple[str, Text]]:
    """Labelled lines; none for a run that nobody opened, that nothing binds and that may go on."""
    if stands.run.purpose:
        yield "purpose", Text(line(stands.run.purpose))
    if stands.trigger is not None:
        trigger = stands.trigger
        said = " ".join(part for part in (trigger.kind, trigger.id, trigger.url) if part)
        yield "trigger", Text(line(said))
    if stands.envelope is not None:
        yield "envelope", Text(line(_envelope(stands.envelope)))
    if stands.status is not RunStatus.OPEN or stands.envelope is not None:
        yield "status", status_text(stands)
    if stands.envelope is not None and stands.expires_us is not None:
        yield "expires", Text(moment(stands.expires_us))
    for use in stands.uses:
        yield "left", _left(use, stands)


def status_text(stands: Standing) -> Text:
    text = Text(stands.status.value, STYLES[stands.status])
    if stands.why:
        text.append(f"  {line(stands.why)}", "dim")
    if stands.run.ended_us is not None:
        text.append(f"  at {moment(stands.run.ended_us)}", "dim")
    return text


def _envelope(envelope: Mapping[str, object]) -> str:
    parts = [
        f"{value:g} {name}" if isinstance(value, float) else f"{value:,} {name}"
        for name, value in envelope.items()
        if isinstance(value, int | float) and name != "expires_s"
    ]
    tools = envelope.get("tools")
    if isinstance(tools, list):
        parts.append(f"tools {', '.join(map(str, tools)) or 'none'}")  # pyright: ignore[reportUnknownArgumentType]
    return ", ".join([*parts, f"for {envelope['expires_s']} s"])


def _left(use: Use, stands: Standing) -> Text:
    shown = _dollars if use.unit == "usd" else _number
    text = Text(f"{shown(use.left)} of {shown(use.maximum)} {use.unit}")
    if use.held:
        text.append(f", {shown(use.held)} held", "cyan")
    whose = "" if use.run_id == stands.run.run_id else f" of run {line(use.run_id)}"
    name = use.limit if not use.limit.startswith(ENVELOPE) else "envelope"
    return text.append(f"  {line(name)}{whose}", "dim")


def _dollars(amount: float) -> str:
    return money(round(amount * 1_000_000))


def _number(amount: float) -> str:
    return f"{int(amount):,}"
