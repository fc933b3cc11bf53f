"""What one call adds to the daily sums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.records.evidence import CallClose, ToolSpendRow
from llm_proxy.records.statements import summed
from llm_proxy.spend.rollup import (
    DAY_US,
    MOST_TOOLS,
    OTHER_TOOLS,
    Grouped,
    Proposed,
    digest,
    refused_row,
    spend_row,
    tool_rows,
)

BY = Grouped("bot", "crew", "ada", "m", "t", "openai", "env=prod")
CLOSE = CallClose("ok", 9, "t", "openai", 1, 100, 20, 30, 4, 5, 1_234, 0, "reported", "v", None, "id")


def test_a_call_counts_on_the_day_on_which_it_began() -> None:
    row = spend_row(3 * DAY_US - 1, BY, CLOSE)
    assert (row.day, spend_row(3 * DAY_US, BY, CLOSE).day) == (2, 3)
    assert (row.requests, row.refused, row.failed, row.retried, row.unpriced) == (1, 0, 0, 0, 0)
    assert (row.input_tokens, row.output_tokens, row.cached_tokens) == (100, 20, 30)
    assert (row.cache_write_tokens, row.reasoning_tokens) == (4, 5)
    assert (row.micro_usd, row.lost_micro_usd, row.guessed_micro_usd) == (1_234, 0, 0)


@pytest.mark.parametrize(
    ("changed", "counted"),
    [
        ({"status": "refused"}, "refused"),
        ({"status": "failed"}, "failed"),
        ({"status": "cut"}, "failed"),
        ({"status": "interrupted"}, "failed"),
        ({"attempts": 2}, "retried"),
        ({"cost_label": "unpriced"}, "unpriced"),
    ],
)
def test_what_did_not_go_well_is_counted_apart(changed: dict[str, object], counted: str) -> None:
    row = spend_row(0, BY, CLOSE._replace(**changed))
    apart = {name: getattr(row, name) for name in ("refused", "failed", "retried", "unpriced")}
    assert apart == {name: int(name == counted) for name in apart}
    assert row.requests == 1


@pytest.mark.parametrize(("label", "guessed"), [("estimated", 1_234), ("partial", 1_234), ("reported", 0)])
def test_guessed_money_is_counted_apart(label: str, guessed: int) -> None:
    row = spend_row(0, BY, CLOSE._replace(cost_label=label, lost_micro_usd=34))
    assert (row.guessed_micro_usd, row.lost_micro_usd, row.micro_usd) == (guessed, 34, 1_234)


def test_a_refused_call_uses_nothing() -> None:
    row = refused_row(5 * DAY_US, BY)
    assert (row.day, row.requests, row.refused, row.micro_usd, row.input_tokens) == (5, 1, 1, 0, 0)
    assert row.id == spend_row(0, BY, CLOSE).id


@given(
    st.lists(st.text(max_size=3), min_size=7, max_size=7),
    st.lists(st.text(max_size=3), min_size=7, max_size=7),
)
def test_the_digest_tells_columns_apart(one: list[str], two: list[str]) -> None:
    assert len(digest(tuple(one))) == 16
    assert (digest(tuple(one)) == digest(tuple(two))) == (one == two)


def test_words_that_move_between_columns_are_another_group() -> None:
    assert digest(("ab", "c")) != digest(("a", "bc"))
    assert digest(("a,b", "")) != digest(("a", "b"))


proposed = st.lists(
    st.builds(Proposed, st.sampled_from(["a", "b", "c", "x" * 300, "nul\0"]), st.booleans()), max_size=12
)


@given(proposed, *[st.integers(0, 2**53)] * 3)
def test_the_shares_of_tools_add_up_to_the_call(
    calls: list[Proposed], input_: int, output: int, micro_usd: int
) -> None:
    close = CLOSE._replace(input_tokens=input_, output_tokens=output, micro_usd=micro_usd)
    rows = tool_rows(spend_row(0, BY, close), calls)
    if not calls:
        assert rows == ()
        return
    assert [sum(getattr(row, name) for row in rows) for name in ToolSpendRow._field_defaults] == [
        1,
        len(calls),
        sum(call.denied for call in calls),
        input_,
        output,
        micro_usd,
    ]
    assert len({row.id for row in rows}) == len({row.tool for row in rows}) == len(rows)
    assert rows[0].requests == 1


def test_shares_are_even_and_the_first_tool_has_the_rest() -> None:
    close = CLOSE._replace(input_tokens=10, output_tokens=7, micro_usd=100)
    first, second = tool_rows(
        spend_row(0, BY, close), [Proposed("a"), Proposed("b"), Proposed("b", denied=True)]
    )
    assert (first.tool, first.tool_calls, first.denied, first.requests) == ("a", 1, 0, 1)
    assert (first.input_tokens, first.output_tokens, first.micro_usd) == (4, 3, 34)
    assert (second.tool, second.tool_calls, second.denied, second.requests) == ("b", 2, 1, 0)
    assert (second.input_tokens, second.output_tokens, second.micro_usd) == (6, 4, 66)


def test_endless_tools_of_one_call_are_one_row() -> None:
    rows = tool_rows(spend_row(0, BY, CLOSE), [Proposed(f"tool-{n}") for n in range(1_000)])
    assert len(rows) == MOST_TOOLS + 1
    assert (rows[-1].tool, rows[-1].tool_calls) == (OTHER_TOOLS, 1_000 - MOST_TOOLS)
    assert sum(row.micro_usd for row in rows) == CLOSE.micro_usd


def test_rows_of_a_batch_add_up() -> None:
    rows = [spend_row(0, BY, CLOSE), spend_row(0, BY, CLOSE), spend_row(DAY_US, BY, CLOSE)]
    first, second = summed(rows)
    assert (first.day, first.requests, first.micro_usd, second.day) == (0, 2, 2_468, 1)
