"""Work for a page, beside calls: in threads of the console's own, that let go of the interpreter early."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

THREADS = 6
GIVES_WAY_S = 0.0005
"""After so long the event loop gets the interpreter back, while a page is made: usually after ten times as
long, and a call needs it many times."""

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="console")


async def aside(work: Callable[[], T]) -> T:
    """What `work` returns, or raises; calls don't wait for it."""

    def giving_way() -> T:
        with _switching.often():
            return work()

    return await asyncio.get_running_loop().run_in_executor(_threads, giving_way)


class _Switching:
    """Threads take turns more often as long as anybody wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._usual_s = 0.0

    @contextmanager
    def often(self) -> Generator[None]:
        with self._lock:
            if self._wanted == 0:
                self._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(GIVES_WAY_S)
            self._wanted += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted -= 1
                if self._wanted == 0:
                    sys.setswitchinterval(self._usual_s)


_switching = _Switching()
