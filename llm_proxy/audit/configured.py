"""`config.loaded`: which configuration a store's proxies ran with, told when it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select, text

from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.tables import records
from llm_proxy.version import VERSION


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `config.loaded`."""

    file: str
    """Its name, without the folder."""
    sha256: str
    """Of its bytes, hex: what `${VAR}` and `file:` bring in isn't among them."""
    version: str
    """The proxy's."""
    before: str = ""
    """The SHA-256 that was recorded before; empty for the first."""


_encode = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Loaded).decode


def loaded(path: Path, now_us: int) -> Job:
    """Records the file at `path`, unless it is the one that was recorded last. Reads it now, and blocks."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def then(found: Found) -> Wrote:
        before: str = found.seen
        if before == digest:
            return Wrote(False)
        body = Loaded(file=path.name, sha256=digest, version=VERSION, before=before)
        draft = Draft(RecordKind.CONFIG_LOADED, now_us, None, None, None, _encode(body))
        return Wrote(True, Evidence(records=(draft,)))

    return Job(then, look=_last)


def _last(connection: Connection) -> str:
    """The SHA-256 that was recorded last; empty where none was, or its record can't be read."""
    # Said as it stands in the index `records_config`, which only then is used.
    mine = text("kind = 'config.loaded'")
    newest = select(records.c.body).where(mine).order_by(records.c.at_us.desc()).limit(1)
    body = connection.execute(newest).scalar()
    try:
        return _read(bytes(body)).sha256 if body is not None else ""
    except msgspec.DecodeError:
        return ""
