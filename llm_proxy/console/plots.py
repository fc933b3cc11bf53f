"""Figures for the plots' library (plotly.js: https://plotly.com/javascript/reference/), as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_proxy.admin.arguments import visible

MOST_SERIES = 8
MOST_DAYS = 400
"""A plot of more is no plot."""
REST = "others"
_PALETTE = (
    *("#2f7fb5", "#c98a1b", "#4b9b5f", "#b5527a", "#7a68c4", "#8a7a3f", "#3d9c9c", "#b0563a"),
    "#8793a0",
)


def stacked(days: Sequence[str], values: Iterable[tuple[str, str, float]], unit: str) -> str:
    """Stacked bars of (day, series, value): the largest series, and the others as one. `unit` is the axis."""
    sums: dict[str, float] = defaultdict(float)
    cells: dict[tuple[str, str], float] = defaultdict(float)
    for day, series, value in values:
        sums[series] += value
        cells[series, day] += value
    largest = sorted(sums, key=lambda series: (-sums[series], series))[:MOST_SERIES]
    rest = [series for series in sums if series not in largest]
    data = [_bars(_name(s), days, [cells[s, day] for day in days], n) for n, s in enumerate(largest)]
    if rest:
        others = [sum(cells[series, day] for series in rest) for day in days]
        data.append(_bars(REST, days, others, MOST_SERIES))
    layout = {"barmode": "stack", "yaxis": {"title": {"text": unit}}, "xaxis": {"type": "category"}}
    return json.dumps({"data": data, "layout": layout})  # in ASCII: nothing in it is told in another way


def days_between(since_us: int, until_us: int) -> list[str]:
    """The days (UTC, `2026-11-01`) that the time touches; none where they are over `MOST_DAYS`."""
    day, last = (
        datetime.fromtimestamp(us / 1e6, UTC).date() for us in (since_us, max(since_us, until_us - 1))
    )
    number = (last - day).days + 1
    return [str(day + timedelta(days=n)) for n in range(number)] if number <= MOST_DAYS else []


def _bars(name: str, x: Sequence[str], y: Sequence[float], n: int) -> dict[str, Any]:
    return {"type": "bar", "name": name, "x": x, "y": y, "marker": {"color": _PALETTE[n]}}


def _name(series: str) -> str:
    """As a plain text: the library takes `<` in names for markup."""
    plain = visible(series or "–").replace("&", "&amp;").replace("<", "&lt;")
    return plain if len(plain) <= 60 else plain[:60] + "…"
