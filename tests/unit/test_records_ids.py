"""UUIDv7: the layout, the order, and no id twice."""

from __future__ import annotations

import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.records.ids import now_us, uuid7


@given(st.integers(0, 2**48 * 1000 - 1))
def test_an_id_is_a_uuid_of_version_7_that_holds_its_time(at_us: int) -> None:
    text = uuid7(at_us)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == at_us // 1000


def test_ids_are_in_the_order_of_their_milliseconds() -> None:
    ids = [uuid7(n * 1000) for n in range(1, 5000, 7)]
    assert ids == sorted(ids)


def test_ids_of_one_moment_differ_from_any_thread() -> None:
    at = now_us()
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(uuid7, [at] * 20_000))
    assert len(set(ids)) == len(ids)


FORKING = """
import os
from llm_proxy.records.ids import uuid7
uuid7(0)
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, " ".join(uuid7(0) for _ in range(50)).encode())
    os._exit(0)
os.wait()
theirs = os.read(read, 10_000).decode().split()
assert len({*theirs, *(uuid7(0) for _ in range(50))}) == 100
"""


def test_ids_of_a_forked_process_are_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True)
