"""What is remembered is bounded by entries and by bytes, and what is large is not remembered at all."""

from __future__ import annotations

from llm_proxy.lately import MOST_OF_ONE, Lately


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    memory = Lately[str, int](entries=2, size=1000)
    memory.keep("a", 1, 10)
    memory.keep("b", 2, 10)
    assert memory.get("a") == 1
    memory.keep("c", 3, 10)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, None, 3)
    assert (len(memory), memory.size) == (2, 20)


def test_bytes_are_bounded_too() -> None:
    memory = Lately[int, str](entries=1000, size=MOST_OF_ONE * 3)
    for n in range(100):
        memory.keep(n, "", MOST_OF_ONE)
    assert (len(memory), memory.size) == (3, MOST_OF_ONE * 3)
    assert memory.get(99) == ""
    memory.keep(99, "anew", 1)
    assert memory.size == MOST_OF_ONE * 2 + 1


def test_what_is_large_is_not_kept() -> None:
    memory = Lately[str, str](entries=10, size=MOST_OF_ONE * 10)
    memory.keep("large", "", MOST_OF_ONE + 1)
    assert (memory.get("large"), len(memory)) == (None, 0)
