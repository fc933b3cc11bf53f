"""Writes what a command makes into a file that isn't there yet."""

from __future__ import annotations

import os
from pathlib import Path

from llm_proxy.cli.output import stop


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Never over a file: the command stops, and says so. `mode` is the file's, under the umask."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        stop(f"{path}: exists already, and nothing is overwritten: name another file, or move it")
    except OSError as error:
        stop(f"{path}: can't be written: {error.strerror or error}")
