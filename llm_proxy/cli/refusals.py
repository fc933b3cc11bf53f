"""`llm-proxy refusals`: how often requests were turned away that could have no record."""

from __future__ import annotations

from llm_proxy.admin.shown import refusal_line
from llm_proxy.archive.listings import list_refusals
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import Column, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import moment

_COLUMNS = (Column("minute"), Column("reason", "bold"), Column("count", right=True))


def refusals(config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Refusals of unidentified callers and of what else has no record, counted by minute and reason.

    Reasons: `missing` (no key), `unknown` (no such key), `lapsed` (revoked, expired, or its agent is gone);
    of signed tokens such as `expired`, `wrong_audience`, `bad_signature`, `unknown_issuer`; `client_gone`
    (left before its request was whole) and `store_unavailable`.
    """
    with reading(load(config)) as connection:
        rows = list_refusals(connection, limit=limit) if connection is not None else []
    if as_json:
        print_json([refusal_line(row) for row in rows])
    else:
        shown = ([moment(row.minute_s * 1_000_000)[:-3], row.reason, f"{row.count:,}"] for row in rows)
        print_table(_COLUMNS, shown, "Nobody was turned away.")
