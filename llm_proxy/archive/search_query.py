"""What is looked for: words, "exact phrases", beginnings*, and -what must not stand there.

Everything else is taken literally: no text can be a mistake in the store's own query language, since that
is only ever written from words of letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from llm_proxy.archive.search_words import words

MOST_CHARS = 1_000
MOST_WORDS = 50
_TERM = re.compile(r'(-?)(?:"([^"]*)(?:"(\*?)|$)|([^\s"]+))')


class BadSearch(ValueError):
    """There is nothing to look for, or too much. The message says what to write instead."""


class Term(NamedTuple):
    """Words that stand one behind the other; `prefix`: the last may go on."""

    words: tuple[str, ...]
    prefix: bool = False
    negated: bool = False


class Query(NamedTuple):
    """All of `terms` hold of one text; with none it's found by facets alone."""

    terms: tuple[Term, ...]

    @property
    def wanted(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if not term.negated)


def parse_query(text: str) -> Query:
    """Raises `BadSearch`."""
    if len(text) > MOST_CHARS:
        raise BadSearch(f"The search has {len(text):,} characters: say it in {MOST_CHARS:,}.")
    terms = [term for match in _TERM.finditer(text) if (term := _term(match)).words]
    if not any(not term.negated for term in terms):
        raise BadSearch('Say what to look for: words, "an exact phrase", or a beginning*; -word leaves out.')
    if sum(len(term.words) for term in terms) > MOST_WORDS:
        raise BadSearch(f"The search has over {MOST_WORDS} words: say it in fewer.")
    return Query(tuple(terms))


def _term(match: re.Match[str]) -> Term:
    minus, phrase, star, word = match.groups()
    text = word if phrase is None else phrase
    prefix = bool(star) or (phrase is None and text.endswith("*"))
    return Term(tuple(words(text)), prefix, bool(minus))


class Any_(NamedTuple):
    """Facets of which a text has at least one."""

    facets: tuple[str, ...]


def fts5(query: Query, facets: Sequence[Any_]) -> str:
    """As SQLite's FTS5 takes it. A facet is a word that no text can hold."""
    wanted = [_quoted(term) for term in query.wanted]
    wanted += [f"({' OR '.join(f'{QUOTE}{facet}{QUOTE}' for facet in one.facets)})" for one in facets]
    unwanted = [_quoted(term) for term in query.terms if term.negated]
    told = " AND ".join(wanted)
    return f"({told}) NOT ({' OR '.join(unwanted)})" if unwanted else told


QUOTE = '"'


def _quoted(term: Term) -> str:
    return f'"{" ".join(term.words)}"' + (" *" if term.prefix else "")


def tsquery(query: Query, facets: Sequence[Any_], long: str) -> str:
    """As PostgreSQL takes it with `::tsquery`. Where a phrase can't be told from positions, since the text
    is one of the facet `long`, its words are enough: `matches` tells those apart."""
    told = [_lexemes(term, long) for term in query.terms]
    told += [f"({' | '.join(f'{chr(39)}{facet}{chr(39)}' for facet in one.facets)})" for one in facets]
    return " & ".join(told)


def _lexemes(term: Term, long: str) -> str:
    marks = [f"'{word}'" for word in term.words]
    if term.prefix:
        marks[-1] += ":*"
    if len(marks) == 1:
        return f"!{marks[0]}" if term.negated else marks[0]
    phrase = f"({' <-> '.join(marks)})"
    if term.negated:
        return f"(!{phrase} | '{long}')"
    return f"({phrase} | ('{long}' & {' & '.join(marks)}))"


def matches(query: Query, text: Sequence[str]) -> bool:
    """Whether the words of a text are what is looked for."""
    return all(bool(found_at(term, text)) is not term.negated for term in query.terms)


def found_at(term: Term, text: Sequence[str], most: int = 1) -> list[int]:
    """Where the term begins among the words of a text, the first `most`."""
    found: list[int] = []
    *whole, last = term.words
    size = len(whole)
    for at in range(len(text) - size):
        end = text[at + size]
        if not (end.startswith(last) if term.prefix else end == last):
            continue
        if all(text[at + n] == word for n, word in enumerate(whole)):
            found.append(at)
            if len(found) >= most:
                break
    return found
