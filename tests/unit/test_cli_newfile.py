"""Files that commands write: never over one that is there, whole or not at all, for whom they are meant."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import typer

from llm_proxy.cli.newfile import new_file, write_new


def test_what_was_written_is_there_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with new_file(path) as file:
        file.write(b"one\n")
        file.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(typer.Exit) as ended:
        write_new(path, "yours")
    assert ended.value.exit_code == 2
    assert path.read_text() == "mine"
    assert capsys.readouterr().err.startswith(f"{path}: exists already, and nothing is overwritten")


def test_where_it_cant_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "absent" / "out"
    with pytest.raises(typer.Exit):
        write_new(path, "text")
    assert capsys.readouterr().err == f"{path}: can't be written: No such file or directory\n"


@pytest.mark.parametrize("flaw", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyError("row")])
def test_half_a_file_is_not_left_behind(
    flaw: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, full = tmp_path / "out", isinstance(flaw, OSError)

    def write() -> None:
        with new_file(path) as file:
            file.write(b"one\n")
            raise flaw

    with pytest.raises(typer.Exit if full else KeyError):
        write()
    assert not path.exists()
    told = f"{path}: can't be written: No space left on device\n" if full else ""
    assert capsys.readouterr().err == told
