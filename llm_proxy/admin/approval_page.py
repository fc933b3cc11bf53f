"""The pages behind a one-time link, as HTML: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from html import escape

from llm_proxy.admin.approvals import ApprovalShown
from llm_proxy.admin.arguments import caution, readable, visible
from llm_proxy.identity.freezing import MAX_REASON

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "th{text-align:left;vertical-align:top;padding-right:1rem;font-weight:normal;opacity:.7;white-space:nowrap}"
    "td{overflow-wrap:anywhere}"
    "pre{border:1px solid;padding:1rem;white-space:pre-wrap;overflow-wrap:anywhere;"
    "direction:ltr;unicode-bidi:bidi-override}"
    "textarea{width:100%;box-sizing:border-box;padding:.5rem;font:inherit}"
    "button{font:inherit;padding:.5rem 2rem;margin:1rem 1rem 0 0}"
    ".caution{font-weight:bold}"
)
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
    "cross-origin-opener-policy": "same-origin",
}


def question(shown: ApprovalShown, operator: str, token: str) -> str:
    """What would run, and the form with which `operator` decides it."""
    facts = (
        ("agent", shown.agent_id),
        ("on behalf of", shown.user_id),
        ("run", shown.run_id),
        ("tool", shown.tool),
        ("owner", shown.owner),
        ("effect", f"{shown.effect}, risk {shown.risk}"),
        ("asked by rule", shown.rule),
        ("why", shown.why),
        ("approved", f"{len(shown.approved_by)} of {shown.quorum}{_by(shown.approved_by)}"),
        ("asked", shown.requested_at),
        ("expires", shown.expires_at),
        ("approval", shown.id),
        ("digest", shown.digest),
    )
    rows = "".join(f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in facts if value)
    warning = caution(shown.arguments)
    told = f'<p class="caution">{_text(warning)}</p>' if warning else ""
    return _page(
        "Approve or deny",
        f"<p>An agent wants to do this. You decide as <strong>{_text(operator)}</strong>.</p>"
        f"<table>{rows}</table>"
        f"<h2>Exactly this would run</h2><pre>{_text(readable(shown.arguments))}</pre>{told}"
        f'<form method="post" action="{_text(shown.id)}">'
        f'<input type="hidden" name="token" value="{_text(token)}">'
        "<label>Reason, for the record"
        f'<textarea name="reason" rows="2" maxlength="{MAX_REASON}" autocomplete="off"></textarea></label>'
        '<button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="deny">Deny</button></form>',
    )


def notice(title: str, text: str) -> str:
    """A page that says one thing."""
    return _page(title, f"<p>{_text(text)}</p>")


def _by(people: Iterable[str]) -> str:
    names = ", ".join(people)
    return f": {names}" if names else ""


def _text(value: str) -> str:
    return escape(visible(value))


def _page(title: str, content: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{content}</body></html>"
    )
