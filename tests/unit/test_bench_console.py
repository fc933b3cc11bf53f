"""What `make bench-console` measures, and that it fails where nothing was measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import console_pages
from bench.console import Browsing
from bench.console_pages import Look, Visitor
from bench.measure import LoadError


class _Told(Visitor):
    """Is answered what it's told, each time after so long (s)."""

    def __init__(self, *answers: tuple[float, int]) -> None:
        self.put_off = set[str]()
        self._answers: Iterator[tuple[float, int]] = iter(answers)

    def _ask(self, path: str) -> tuple[float, int]:
        took, status = next(self._answers)
        time.sleep(took)
        return took * 1000, status


def test_a_page_that_is_put_off_is_measured_until_it_is_there() -> None:
    visitor = _Told((0.03, 202), (0.06, 202), (0.01, 200))
    look = visitor.look("/console")
    assert look.answer == pytest.approx(60)
    assert look.page >= 100
    assert visitor.put_off == {"/console"}


def test_a_page_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_pages, "MOST_S", 0.05)
    with pytest.raises(TimeoutError, match="/console: it didn't come"):
        _Told(*[(0.02, 202)] * 20).look("/console")


def test_a_person_who_cant_browse_is_heard_of() -> None:
    looked = threading.Event()

    class Broken:
        def look(self, path: str) -> Look:
            looked.set()
            raise RuntimeError(f"{path}: status 500")

    broken: Any = Broken()
    with pytest.raises(RuntimeError, match="status 500"), Browsing(broken, ["/console"], 0, every_s=0.01):
        assert looked.wait(10)


def test_a_person_who_sees_no_page_is_heard_of() -> None:
    with pytest.raises(LoadError, match="nobody browsed"), Browsing(_Told(), ["/console"], 0):
        pass
    with Browsing(_Told(), (), 0) as alone:
        pass
    assert alone.took == []
