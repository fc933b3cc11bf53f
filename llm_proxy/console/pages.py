"""Makes pages: templates with every value escaped, and nothing in a text that hides or moves others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote as quoted
from typing import Any
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from llm_proxy.admin import arguments
from llm_proxy.admin.arguments import readable, visible
from llm_proxy.admin.door import APPROVAL_READERS, CONTENT_READERS, READERS
from llm_proxy.admin.searched import SearchHit
from llm_proxy.config.choices import Role
from llm_proxy.console.assets import Assets
from llm_proxy.console.security import HEADERS
from llm_proxy.console.sessions import Session
from llm_proxy.version import VERSION

_PLAIN = re.compile(r"[\x20-\x7e\n]*")
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation, and who sees it."""

    path: str
    name: str
    roles: frozenset[Role]


PLACES = (
    Place("/console", "Overview", READERS),
    Place("/console/agents", "Agents", READERS),
    Place("/console/runs", "Runs", READERS),
    Place("/console/approvals", "Approvals", APPROVAL_READERS),
    Place("/console/spend", "Spend", READERS),
    Place("/console/policy", "Policy", READERS),
    Place("/console/routes", "Routes", READERS),
    Place("/console/audit", "Audit", CONTENT_READERS),
)


class Pages:
    """One per worker."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_shown,
        )
        names: dict[str, Any] = {"asset": assets.address, "version": VERSION, "query": query}
        filters: dict[str, Any] = {"time": time, "usd": usd, "n": number, "laid_out": readable, "path": path}
        filters |= {"pieces": pieces, "word": quoted, "said": said, "amount": amount}
        names["plots_id"] = lambda: assets.plots_id
        self._environment.globals.update(names)
        self._environment.filters.update(filters)

    def show(
        self, template: str, session: Session | None, *, at: str = "", code: int = 200, **told: Any
    ) -> HTMLResponse:
        """The page, for whoever is signed in; `at` is its entry of the navigation."""
        places = [p for p in PLACES if session is not None and session.operator.roles & p.roles]
        page = self._environment.get_template(template).render(session=session, places=places, at=at, **told)
        return HTMLResponse(page, code, HEADERS)

    def piece(self, template: str, **told: Any) -> str:
        """A piece of a page, for its script to put in."""
        return self._environment.get_template(template).render(**told)


def _shown(value: object) -> object:
    """Every text that a template puts out, before it's escaped: none hides, moves or turns others."""
    return visible(value) if type(value) is str and not _PLAIN.fullmatch(value) else value


def said(text: str) -> Markup:
    """What somebody said, for the templates to put out as it is."""
    return escape(text if _PLAIN.fullmatch(text) else arguments.said(text))


def time(us: int | None) -> Markup:
    """A moment (Unix µs), which the page's script tells in the viewer's own zone."""
    if us is None:
        return Markup("–")
    moment = datetime.fromtimestamp(us / 1e6, UTC)
    stamp, text = moment.isoformat(timespec="milliseconds"), f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}">{}</time>').format(stamp, text)


def usd(micro: int) -> str:
    """Dollars of micro-dollars: to the cent, and further where there is something."""
    whole, part = divmod(abs(micro), 1_000_000)
    return f"{'-' if micro < 0 else ''}${whole:,}.{f'{part:06}'.rstrip('0').ljust(2, '0')}"


def amount(value: float, unit: str) -> str:
    """What a limit counts: dollars, or a number of something."""
    return usd(round(value * 1_000_000)) if unit == "usd" else number(value)


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def pieces(hit: SearchHit) -> list[tuple[str, bool]]:
    """A snippet cut at its marks, and whether each piece is marked."""
    text, found, at = hit.snippet or "", list[tuple[str, bool]](), 0
    for start, end in hit.marks:
        found += [(text[at:start], False), (text[start:end], True)]
        at = end
    return [*found, (text[at:], False)]


def path(value: str) -> str:
    """One segment of an address: an id may hold anything. Dots alone would lead elsewhere."""
    return f"{value}%20" if value in (".", "..") else quote(value, safe="")


def unpathed(value: str) -> str:
    """What `path` was made of, as the server reads it."""
    return value.removesuffix(" ") if value in (". ", ".. ") else value


def query(**given: str | int | None) -> str:
    """`?a=b&…` of what is given."""
    found = {name: value for name, value in given.items() if value not in (None, "")}
    return f"?{urlencode(found)}" if found else ""
