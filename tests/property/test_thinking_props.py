"""However a text is cut, its tagged reasoning is the same."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import Event, Reasoning, Text
from llm_proxy.chat.thinking import ThinkTags

TAGS = [f"<{slash}{name}>" for name in ("think", "thinking", "thought") for slash in ("", "/")]
PIECES = st.sampled_from([*TAGS, "<thi", "</", "<", ">", "a", " ", "\n", " " * 40, "word", "`<think>`"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def parts(events: list[Event]) -> tuple[dict[int, str], str]:
    thoughts: dict[int, str] = {}
    text = ""
    for event in events:
        if isinstance(event, Reasoning):
            thoughts[event.part] = thoughts.get(event.part, "") + event.text
        elif isinstance(event, Text):
            text += event.text
    return thoughts, text


@given(TEXTS, st.lists(st.integers(0, 80), max_size=20), st.booleans())
def test_any_chunking_gives_the_same_parts(text: str, cuts: list[int], prefilled: bool) -> None:
    whole = ThinkTags(prefilled=prefilled)
    expected = parts([*whole.split([Text(0, text)]), *whole.close()])
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    tags = ThinkTags(prefilled=prefilled)
    events: list[Event] = []
    for start, end in itertools.pairwise(bounds):
        events += tags.split([Text(0, text[start:end])])
    assert parts([*events, *tags.close()]) == expected
    assert not tags.close()


@given(TEXTS)
def test_no_word_is_lost(text: str) -> None:
    tags = ThinkTags()
    thoughts, rest = parts([*tags.split([Text(0, text)]), *tags.close()])
    said = "".join(thoughts.values()) + rest
    for tag in ("think", "thinking", "thought"):
        text, said = (t.replace(f"<{tag}>", "").replace(f"</{tag}>", "") for t in (text, said))
    assert said.split() == text.split() or "".join(said.split()) == "".join(text.split())
