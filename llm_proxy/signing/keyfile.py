"""The key's file: made once, whoever comes first, and read by all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from llm_proxy.signing.key import SigningKey

_MOST_BYTES = 16_384
"""A PEM of one key has some 120."""
_OTHERS = 0o077


class KeyFileError(Exception):
    """The key can't be had; the message names the file and says what to do, and holds nothing of the key."""


def load_or_make(path: Path) -> SigningKey:
    """The key in `path`, which is made where it's absent. Blocks. Raises `KeyFileError`.

    Processes that start at once agree on one key: each that finds none writes its own beside it and links it
    into place, which only the first can; then all read what stands there.
    """
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise KeyFileError(
            f"The signing key {path} can't be read or made: {reason}. Make its directory writable, or "
            f"make the key yourself: openssl genpkey -algorithm ed25519 -out {path}"
        ) from error
    try:
        return SigningKey.read(raw)
    except ValueError as error:
        raise KeyFileError(
            f"The signing key {path} {error}. Put the right file there, or delete it: a new one is made."
        ) from error


def open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read the file."""
    return bool(path.stat().st_mode & _OTHERS)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(SigningKey.new().pem())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
