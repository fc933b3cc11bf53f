"""What an answer is: a question, a verdict, the figures behind it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

MOST_NAMES = 8
"""Names that one line of evidence lists."""


class Verdict(StrEnum):
    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    NOT_APPLICABLE = "n/a"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`evidence` is what was found, `missing` what of it is not as it should be, `todo` the remedies."""

    id: str
    question: str
    verdict: Verdict
    evidence: tuple[str, ...]
    missing: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()


class Posture(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report. `ready`: every answer is yes or n/a."""

    ready: bool
    at_us: int
    at: str
    config: str
    """The config file's name and SHA-256."""
    policy: str
    days: int
    """Up to how many days of records the figures are of."""
    answers: tuple[Answer, ...]


class Check(NamedTuple):
    """One thing that was looked at. `told` says what was found; `todo` is for where it isn't `ok`."""

    ok: bool
    told: str
    todo: str = ""


class Note(NamedTuple):
    """Evidence that decides nothing."""

    told: str


Found = Check | Note


def answered(id_: str, question: str, found: Iterable[Found], *, vital: Sequence[str] = ()) -> Answer:
    """Yes where every check holds, no where none does, else partly; n/a without a check.

    `vital`: a `told` that isn't ok and begins with one of these makes it no, whatever else holds.
    """
    every = list(found)
    checks = [each for each in every if isinstance(each, Check)]
    bad = [check for check in checks if not check.ok]
    lost = any(check.told.startswith(tuple(vital)) for check in bad) if vital else False
    if not checks:
        verdict = Verdict.NOT_APPLICABLE
    elif not bad:
        verdict = Verdict.YES
    else:
        verdict = Verdict.NO if lost or len(bad) == len(checks) else Verdict.PARTLY
    return Answer(
        id=id_,
        question=question,
        verdict=verdict,
        evidence=tuple([each.told for each in every if isinstance(each, Note) or each.ok]),
        missing=tuple([check.told for check in bad]),
        todo=tuple(dict.fromkeys(check.todo for check in bad if check.todo)),
    )


def not_applicable(id_: str, question: str, why: str) -> Answer:
    return Answer(id=id_, question=question, verdict=Verdict.NOT_APPLICABLE, evidence=(why,))


def names(found: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    listed = list(found)
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    return ", ".join(listed[:MOST_NAMES]) + more


def share(part: int, whole: int) -> str:
    """As `37 of 40 (92%)`, rounded down so that 100% is all of them."""
    return f"{part:,} of {whole:,} ({100 * part // whole if whole else 0}%)"
