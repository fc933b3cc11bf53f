"""Writes a day's calls to a file before their content is deleted: JSON Lines, gzip, one file a day.

The first line tells what the file is, the last how many calls it holds: a file without it is not whole.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.archive.calls import each_view
from llm_proxy.archive.judged import Wanted, pages
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.view import CallView
from llm_proxy.retention.days import SLACK_US, day_of
from llm_proxy.version import VERSION

FORMAT = "llm-proxy.content/1"
_encode = msgspec.json.Encoder().encode


Stopped = Callable[[], bool]


def _never() -> bool:
    return False


class Exported(NamedTuple):
    """A file that is there for good. `sha256` is that of its bytes."""

    path: Path
    sha256: str
    bytes: int
    calls: int


class ExportFailed(Exception):
    """The file can't be written. The message says which, and why."""


class _First(msgspec.Struct, frozen=True):
    format: str
    day: str
    """UTC."""
    version: str
    """Of the proxy that wrote it."""


class _Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call. `call` is as the evidence has it, with bodies as base64; the text of each is beside it."""

    call: CallView
    request: str | None = None
    sent: str | None = None
    emitted: str | None = None
    released: str | None = None


class _Last(msgspec.Struct, frozen=True):
    calls: int


def export_day(
    engine: Engine, epoch: int, folder: Path, who: str, *, whole: bool = True, stopped: Stopped = _never
) -> Exported:
    """Blocks. `who` marks the file while it's written; nothing that is there is overwritten.

    Calls of the first hour of the next day are among them: they may be stored under this day. Not `whole`:
    only calls of which all content is kept, where that of others is deleted already. Raises `ExportFailed`,
    also once it is `stopped`, and what the store raises.
    """
    part = folder / f".content-{day_of(epoch)}.{who}.part"
    path = part
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = _free(folder, f"content-{day_of(epoch)}")
        with _private(part) as file:
            calls = _write(engine, epoch, file, whole, stopped)
            file.flush()
            os.fsync(file.fileno())
        sha256, size = _digest(part)
        part.replace(path)
        _keep(folder)
    except ExportFailed:
        _drop(part)
        raise
    except OSError as error:
        _drop(part)
        raise ExportFailed(f"{path}: {error.strerror or type(error).__name__}") from error
    except SQLAlchemyError:
        _drop(part)
        raise
    except Exception as error:  # whatever a damaged row comes to: what can't be copied must stay
        _drop(part)
        why = f"a call of {day_of(epoch)} can't be read ({type(error).__name__})"
        raise ExportFailed(f"{path}: {why}: `llm-proxy audit verify` names what is damaged") from error
    return Exported(path, sha256, size, calls)


def _drop(part: Path) -> None:
    with suppress(OSError):
        part.unlink()


def _private(path: Path) -> IO[bytes]:
    """A new file, for its owner alone: it holds what agents said."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _free(folder: Path, name: str) -> Path:
    numbered = (f"{name}-{n}" if n > 1 else name for n in count(1))
    return next(path for each in numbered if not (path := folder / f"{each}.jsonl.gz").exists())


def _write(engine: Engine, epoch: int, file: IO[bytes], whole: bool, stopped: Stopped) -> int:  # noqa: FBT001
    calls = 0
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as out:
        out.write(_encode(_First(FORMAT, day_of(epoch), VERSION)) + b"\n")
        with engine.connect() as connection:
            for view in _calls(connection, epoch):
                if stopped():
                    raise ExportFailed("the proxy stops, and goes on when it starts again")
                if whole or view.kept:
                    out.write(_encode(_line(view)) + b"\n")
                    calls += 1
        out.write(_encode(_Last(calls)) + b"\n")
    return calls


def _calls(connection: Connection, epoch: int) -> Iterator[CallView]:
    wanted = Wanted(epoch * DAY_US, (epoch + 1) * DAY_US + SLACK_US)
    for ids, _ in pages(connection, wanted):
        yield from each_view(connection, ids)


def _line(view: CallView) -> _Call:
    return _Call(view, _text(view.request), _text(view.sent), _text(view.emitted), _text(view.released))


def _text(body: bytes | None) -> str | None:
    """None where it is no text, too: then the base64 has it."""
    try:
        return None if body is None else body.decode()
    except UnicodeDecodeError:
        return None


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


def _keep(folder: Path) -> None:
    """The name is on disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
