"""What a word is, and what a search asks for, whatever somebody types."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.archive.search import snippet
from llm_proxy.archive.search_query import BadSearch, Query, Term, fts5, matches, parse_query
from llm_proxy.archive.search_words import LONGEST_WORD, places, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("issues_create ada@example.com", ["issues", "create", "ada", "example", "com"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("cre\u0300me", ["creme"]),
        ("Straße ﬁx ＡＢＣ", ["strasse", "fix", "abc"]),
        ("返金できない", list("返金できない")),
        ("café返金2x", ["cafe", "返", "金", "2x"]),
        ("a\0b\ue000c \ud800", ["a", "b", "c"]),
        ("x" * 100, ["x" * LONGEST_WORD]),
        ("", []),
    ],
)
def test_words_are_letters_and_digits_without_case_and_accents(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("refund late", [Term(("refund",)), Term(("late",))]),
        ('"refund is late" -"not now"', [Term(("refund", "is", "late")), Term(("not", "now"), negated=True)]),
        ("refun* A-17", [Term(("refund"[:5],), prefix=True), Term(("a", "17"))]),
        ('"refund is la"*', [Term(("refund", "is", "la"), prefix=True)]),
        ('a"b c"d', [Term(("a",)), Term(("b", "c")), Term(("d",))]),
        ('"not ended', [Term(("not", "ended"))]),
        ("a - b", [Term(("a",)), Term(("b",))]),
        ("--a b", [Term(("a",), negated=True), Term(("b",))]),
    ],
)
def test_queries_are_words_phrases_beginnings_and_what_is_left_out(text: str, terms: list[Term]) -> None:
    assert list(parse_query(text).terms) == terms


@given(st.text(max_size=60), st.text(max_size=200))
def test_every_query_is_one_that_the_store_takes_and_means_what_it_says(typed: str, text: str) -> None:
    try:
        query = parse_query(typed)
    except BadSearch:
        return
    store = sqlite3.connect(":memory:")
    store.execute("CREATE VIRTUAL TABLE w USING fts5(words, content='', columnsize=0, tokenize='ascii')")
    store.execute("INSERT INTO w (rowid, words) VALUES (1, ?)", (" ".join(words(text)),))
    found = store.execute("SELECT rowid FROM w WHERE w MATCH ?", (fts5(query, ()),)).fetchall()
    store.close()
    assert bool(found) == matches(query, words(text))


@given(st.text(max_size=200))
def test_places_are_those_of_the_words(text: str) -> None:
    for place in places(text):
        assert 0 <= place.start < place.end <= len(text)
        assert place.word in words(text[place.start : place.end])


@given(st.text(min_size=1, max_size=400), st.integers(0, 400))
def test_a_snippet_marks_what_was_looked_for(text: str, at: int) -> None:
    there = words(text)
    if not there:
        return
    word = there[at % len(there)]
    shown = snippet(text, Query((Term((word,)),)))
    for start, end in shown.marks:
        assert 0 <= start < end <= len(shown.text)
