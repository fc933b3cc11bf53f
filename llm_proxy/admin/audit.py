"""Verifying and exporting for operators: the same from the command line and by `/admin`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.when import when
from llm_proxy.audit.export import Order, exported_draft
from llm_proxy.audit.exported import BadExport, kept_checkpoints
from llm_proxy.audit.findings import Finding, Report, Wrong
from llm_proxy.audit.keys import BadKey, public_keys
from llm_proxy.audit.lines import Filter
from llm_proxy.audit.since import NoCheckpoint, starts_at
from llm_proxy.audit.source import Source
from llm_proxy.audit.verify import Progress, Scope, verify
from llm_proxy.records.content_reads import Place, read_draft
from llm_proxy.records.evidence import Draft
from llm_proxy.records.runstate import RunKey
from llm_proxy.signing import KeyFileError, SigningKey, load_or_make

_EMPTY = Report(
    intact=True,
    findings=(),
    found=0,
    writers=0,
    records=0,
    checkpoints=0,
    contents=0,
    deleted=0,
    newest_checkpoint=None,
    newest_checkpoint_us=None,
    unsigned=0,
    notes=("nothing was ever recorded",),
)


def verified(
    connection: Connection | None,
    keys: Mapping[str, bytes],
    limit: int,
    progress: Progress,
    *,
    since: str | None = None,
    against: Path | None = None,
) -> Report:
    """The report on what `connection` sees at one moment. Raises `Unclear`, and what the database raises.

    A database that says of itself that it's damaged is a finding.
    """
    if connection is None:
        return _EMPTY
    try:
        starts = starts_at(connection, since, keys) if since is not None else None
        scope = Scope(keys=keys, starts=starts, kept=kept_checkpoints(against) if against else ())
        return verify(Source(connection), scope, limit, progress)
    except (NoCheckpoint, BadExport) as error:
        raise Unclear(str(error)) from None
    except DatabaseError as error:
        if "malformed" not in str(error.orig):
            raise
        damage = Finding(table="", row="", what=Wrong.DAMAGED, message=f"the database says: {error.orig}")
        return msgspec.structs.replace(_EMPTY, intact=False, findings=(damage,), found=1, notes=())


def keys_of(given: list[str], own: Path) -> dict[str, bytes]:
    """The keys by which checkpoints are checked: those of files that are `given`, else of the file `own`.

    What is given may be the id of a key, too, which `own` must then hold. Raises `Unclear`.
    """
    try:
        if not given:
            return public_keys(own) if own.exists() else {}
        found: dict[str, bytes] = {}
        for name in given:
            found |= public_keys(Path(name)) if Path(name).exists() else _by_id(name, own)
    except (BadKey, OSError) as error:
        raise Unclear(str(error)) from None
    return found


def own_key(path: Path) -> SigningKey | None:
    """The key to sign an export with: the one in `path`, where it is. Raises `Unclear`."""
    try:
        return load_or_make(path) if path.exists() else None
    except KeyFileError as error:
        raise Unclear(str(error)) from None


def told(order: Order, place: Place, records: int) -> list[Draft]:
    """What goes on record before an export is written out."""
    drafts = [exported_draft(order, place, records)]
    if order.content:
        wish = order.filter
        run = RunKey(wish.agent, wish.run) if wish.agent and wish.run else None
        read = read_draft(by=order.by, place=place, what="audit export", at_us=order.now_us, run=run)
        drafts.insert(0, read)
    return drafts


def wanted(
    since: str | None,
    until: str | None,
    agent: str | None,
    run: str | None,
    now_us: int,
    *,
    checkpoints: bool = False,
) -> Filter:
    """What an export is asked for. Raises `Unclear`."""
    return Filter(
        since_us=when(since, now_us),
        until_us=when(until, now_us),
        agent=agent,
        run=run,
        checkpoints=checkpoints,
    )


def _by_id(name: str, own: Path) -> dict[str, bytes]:
    held = public_keys(own) if own.exists() else {}
    if name not in held:
        raise Unclear(
            f"{name!r} is no file, and no id of a key in {own}: give a public key as PEM, JWK or JWK set."
        )
    return {name: held[name]}
