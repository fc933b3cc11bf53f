"""What is recorded of a search holds whatever was typed."""

from __future__ import annotations

from llm_proxy.records.content_reads import MOST_WORDS, Place, read_content_read, read_draft


def test_words_that_are_no_text_are_recorded_all_the_same() -> None:
    """As bytes of a command line that aren't UTF-8 come to Python."""
    typed = b"caf\xe9 \0".decode("utf-8", "surrogateescape") + "x" * 5_000
    draft = read_draft(by="sue", place=Place.CLI, what="calls search", at_us=1, words=typed)
    words = read_content_read(draft.body).words
    assert words.startswith("caf? ")
    assert len(words) <= MOST_WORDS
