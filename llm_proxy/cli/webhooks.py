"""`llm-proxy webhooks`: where events go, what became of them, and sending one again or as a test."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.webhooks import DeliveryLine, Outcome, WebhookLine, delivery_lines, webhook_lines
from llm_proxy.cli.change import changing
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption, UrlOption
from llm_proxy.cli.output import Column, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import moment
from llm_proxy.config.choices import Event

app = typer.Typer(help="Signed events for other systems, and what became of them.", no_args_is_help=True)

_WEBHOOKS = (
    Column("webhook", "bold", whole=True),
    Column("address"),
    Column("events"),
    Column("waiting", right=True),
    Column("delivered", right=True),
    Column("given up", right=True),
    Column("last error"),
)
_DELIVERIES = (
    Column("delivery", "bold", whole=True),
    Column("webhook"),
    Column("event"),
    Column("status"),
    Column("tries", right=True),
    Column("since"),
    Column("next or end"),
    Column("last error"),
)
_STYLE = {Outcome.WAITING: "yellow", Outcome.DELIVERED: "green", Outcome.GIVEN_UP: "red"}
WebhookOption = Annotated[
    str | None, typer.Option("--webhook", metavar="WEBHOOK", help="To this one only.", show_default=False)
]


@app.command("list")
def list_(config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """The config's webhooks, with their deliveries of the last 30 days."""
    loaded = load(config)
    with reading(loaded) as connection:
        lines = webhook_lines(loaded, connection, limit)
    if as_json:
        print_json(lines)
    else:
        print_table(_WEBHOOKS, map(_webhook, lines), "No webhooks: list them under `webhooks` in the config.")


@app.command("deliveries")
def deliveries_(
    webhook: WebhookOption = None,
    status: Annotated[Outcome | None, typer.Option(help="Only these.", show_default=False)] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Events and what became of them, the newest first; kept for 30 days."""
    with reading(load(config)) as connection:
        lines = delivery_lines(connection, limit, webhook=webhook, status=status)
    if as_json:
        print_json(lines)
    else:
        print_table(_DELIVERIES, map(_delivery, lines), "No deliveries.")


@app.command()
def redeliver(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY")],
    webhook: WebhookOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Send a delivery again, under its own id, to all its webhooks or to one.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        lines = change.redeliver(delivery, webhook)
    if as_json:
        print_json(lines)
    else:
        names = ", ".join(line.webhook for line in lines)
        typer.echo(f"Delivery {delivery} is on its way to {names} again.")


@app.command("test")
def send_test(
    webhook: Annotated[str, typer.Argument(metavar="WEBHOOK")],
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Send a `webhook.test` event to a webhook; a running proxy sends it within a second.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        line = change.test_webhook(webhook)
    if as_json:
        print_json(line)
    else:
        typer.echo(
            f"Delivery {line.id} is on its way to {line.webhook}: `llm-proxy webhooks deliveries` shows more."
        )


def _webhook(line: WebhookLine) -> list[str | Text]:
    events = "all" if len(line.events) == len(Event) else ", ".join(line.events)
    counts = (f"{line.waiting:,}", f"{line.delivered:,}", f"{line.given_up:,}")
    return [line.id, line.url, events, *counts, line.last_error]


def _delivery(line: DeliveryLine) -> list[str | Text]:
    status = Text(line.status.replace("_", " "), _STYLE[line.status])
    when = moment(line.next_us if line.next_us is not None else line.ended_us)
    tries = f"{line.attempts:,}"
    return [line.id, line.webhook, line.event, status, tries, moment(line.created_us), when, line.error]
