"""Questions to the sums as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_proxy.spend.cells import dollars, lines, text
from llm_proxy.spend.question import BadQuestion, Filters, Question, asked, before, groups, moment
from llm_proxy.spend.rollup import DAY_US
from llm_proxy.spend.sources import Span, span
from llm_proxy.spend.sums import value_of
from llm_proxy.spend.tallies import Tallies

NOW = 1_800_000_000_000_000


def _us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("7d", NOW - 7 * DAY_US),
        ("24h", NOW - DAY_US),
        ("30m", NOW - DAY_US // 48),
        ("2w", NOW - 14 * DAY_US),
        ("2026-11-01", _us(2026, 11, 1)),
        ("2026-11-01T08:30", _us(2026, 11, 1, 8, 30)),
        ("2026-11-01T08:30:00Z", _us(2026, 11, 1, 8, 30)),
        ("2026-11-01T10:30:00+02:00", _us(2026, 11, 1, 8, 30)),
        ("2026-11-01T08:30:00.000001Z", _us(2026, 11, 1, 8, 30) + 1),
    ],
)
def test_times_are_read(written: str, meant: int) -> None:
    assert moment(written, NOW) == meant


@pytest.mark.parametrize(
    "written", ["", "7", "d7", "-7d", "7y", "yesterday", "2026-13-01", "99999d", "1969-01-01"]
)
def test_what_is_no_time_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(BadQuestion, match=r"write|later|since 1970"):
        moment(written, NOW)


def test_groups_are_read() -> None:
    assert groups("agent, day") == ("agent", "day")
    assert groups("tag:cost-centre,tag:env") == ("tag:cost-centre", "tag:env")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "Nothing to group by"),
        (",", "Nothing to group by"),
        ("agnet", "did you mean 'agent'"),
        ("colour", "use agent, team"),
        ("tag:", "can't be grouped"),
        ("day,day", "each group once"),
        ("agent,team,user,model,target,provider,tag,day,week", "at most 8"),
        ("run,tool", "Runs and tools"),
    ],
)
def test_groups_that_make_no_sense_are_refused(written: str, said: str) -> None:
    with pytest.raises(BadQuestion, match=said):
        groups(written)


def test_a_time_must_not_end_before_it_begins() -> None:
    with pytest.raises(BadQuestion, match="ends before"):
        asked("agent", "2026-11-02", "2026-11-01", Filters(), NOW)
    with pytest.raises(BadQuestion, match="tools of one run"):
        asked("tool", None, None, Filters(run="r"), NOW)


def test_tools_are_asked_over_whole_days() -> None:
    found = asked("tool", "2026-11-01T08:00", "2026-11-03T00:00:01", Filters(), NOW)
    assert (found.since_us, found.until_us) == (_us(2026, 11, 1), _us(2026, 11, 4))
    same = asked("tool", "2026-11-01", "2026-11-03", Filters(), NOW)
    assert (same.since_us, same.until_us) == (_us(2026, 11, 1), _us(2026, 11, 3))


def test_a_comparison_is_with_the_time_just_before() -> None:
    question = Question(since_us=NOW - DAY_US)
    earlier = before(question, NOW)
    assert (earlier.since_us, earlier.until_us) == (NOW - 2 * DAY_US, NOW - DAY_US)
    ended = before(Question(since_us=100, until_us=110), NOW)
    assert (ended.since_us, ended.until_us) == (90, 100)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(), "Name a --since"),
        (Question(by=("agent", "day"), since_us=1), "leave day"),
        (Question(by=("run",), since_us=1), "leave day"),
        (Question(since_us=NOW + 1), "hasn't begun"),
    ],
)
def test_what_can_not_be_compared_is_said(question: Question, said: str) -> None:
    with pytest.raises(BadQuestion, match=said):
        before(question, NOW)


def test_days_and_their_parts() -> None:
    day = DAY_US
    assert span(Question()) == Span(None, None)
    assert span(Question(since_us=2 * day, until_us=4 * day)) == Span(2, 4)
    assert span(Question(since_us=day + 1, until_us=3 * day + 5)) == Span(
        2, 3, ((day + 1, 2 * day), (3 * day, 3 * day + 5))
    )
    assert span(Question(since_us=day + 1, until_us=day + 2)) == Span(0, 0, ((day + 1, day + 2),))
    assert span(Question(since_us=day + 1, until_us=2 * day)) == Span(2, 2, ((day + 1, 2 * day),))
    assert span(Question(since_us=day - 1)) == Span(1, None, ((day - 1, day),))


@pytest.mark.parametrize(
    ("tags", "value"),
    [
        ("", ""),
        ("env=prod", "prod"),
        ("env:prod", "prod"),
        ("environment=prod", ""),
        ("a=1,env=blue=2", "blue=2"),
        ("env:a,env=b,x", "a,b"),
        ("env=", ""),
        ("env", ""),
    ],
)
def test_the_value_of_a_tag(tags: str, value: str) -> None:
    assert value_of("env", tags) == value


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_no_cell_is_taken_for_a_formula(evil: str) -> None:
    assert text(evil) == f"'{evil}"
    assert text("a=1") == "a=1"


def test_csv_quotes_what_would_break_a_line() -> None:
    assert "".join(lines(["a", "b"], [['x,"y"\n', 1], ["", 2]])) == 'a,b\n"x,""y""\n",1\n,2\n'
    many = "".join(lines(["n"], ([n] for n in range(1_501))))
    assert many.splitlines() == ["n", *map(str, range(1_501))]


@pytest.mark.parametrize(
    ("micro_usd", "written"),
    [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (-2, "-0.000002"), (10**16 + 1, "10000000000.000001")],
)
def test_dollars_are_exact(micro_usd: int, written: str) -> None:
    assert dollars(micro_usd) == written


def test_tallies_add_up_past_what_fits_in_memory() -> None:
    with Tallies(2, most=3) as tallies:
        for turn in range(4):
            for key in range(10):
                tallies.add(f"k{key}", (key, turn))
        assert tallies.take(["k1", "k9", "none"]) == {"k1": (4, 6), "k9": (36, 6)}
        assert dict(tallies.rest()) == {f"k{key}": (4 * key, 6) for key in range(9) if key != 1}
