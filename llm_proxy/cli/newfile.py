"""Writes what a command makes into a file that isn't there yet."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from llm_proxy.cli.output import stop


@contextmanager
def new_file(path: Path, mode: int = 0o600) -> Generator[BinaryIO]:
    """Never over a file: the command stops, and says so. What couldn't be written whole is not left behind.

    `mode` is the file's, under the umask.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        stop(f"{path}: exists already, and nothing is overwritten: name another file, or move it")
    except OSError as error:
        _unwritten(path, error)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        _unwritten(path, error)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """The same, for everybody to read."""
    with new_file(path, mode) as file:
        file.write(text.encode())


def _unwritten(path: Path, error: OSError) -> NoReturn:
    stop(f"{path}: can't be written: {error.strerror or error}")
