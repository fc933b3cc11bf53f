"""Whatever streams say, in whatever pieces and side by side: what is released was held before."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import Amount, Settle, Unit
from llm_proxy.chat.events import CallDelta, Reasoning, Text, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly
from llm_proxy.errors import Kind, ProxyError
from tests.stores import NOW
from tests.unit.stream_holds import COUNTER, PRICE, PROMPT, Call, Ledger, call

PIECES = st.one_of(
    st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=32), max_size=60),
    st.sampled_from(
        ["the quick brown fox ", "日本語の文章です。", "Zürich – naïve ", "0123456789abcdef", "\n\n"]
    ),
)
CHUNKS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["text", "thought", "call", "usage"]), PIECES, st.integers(1, 40)
    ),
    min_size=5,
    max_size=60,
)
ROOM = st.integers(PROMPT * 3 + 3 * 200, 12_000)


@dataclass
class Stream:
    call: Call
    assembly: Assembly = field(default_factory=Assembly)
    text: list[str] = field(default_factory=list[str])
    ended: ProxyError | None = None

    async def hears(self, kind: str, piece: str, times: int) -> None:
        """One chunk; AssertionError where more than what is held would be released."""
        said = piece * times
        match kind:
            case "text":
                self.assembly.add(Text(0, said))
            case "thought":
                self.assembly.add(Reasoning(0, said))
            case "call":
                self.assembly.add(CallDelta(0, 0, arguments=said))
            case _:
                told = await COUNTER.count(("".join(self.text) or " ",))
                self.assembly.add(UsageSeen(Usage(input=PROMPT, output=told)))
                said = ""
        self.text.append(said)
        allowance, exchange = self.call.allowance, self.call.exchange
        try:
            if allowance.short(self.assembly):
                await allowance.cover(self.assembly)
        except ProxyError as error:
            self.ended = error
        held, bound = exchange.held.output_tokens, allowance.bound(self.assembly)
        if self.ended is None:
            assert bound <= held or held == PRICE.max_output
        else:
            assert self.ended.kind is Kind.BUDGET_EXCEEDED
            assert bound > held

    async def tokens(self) -> int:
        return await COUNTER.count(tuple(text for text in self.text if text) or (" ",))


@given(CHUNKS, ROOM)
async def test_what_is_released_was_held_and_the_limit_is_never_passed(
    chunks: list[tuple[int, str, str, int]], room: int
) -> None:
    ledger, most = Ledger(), {Unit.TOKENS: room}
    streams = [Stream(call(most, start=200, ledger=ledger, id_=f"call-{n}")) for n in range(3)]
    bound = streams[0].call.bound
    for who, kind, piece, times in chunks:
        stream = streams[who]
        if stream.ended is None:
            await stream.hears(kind, piece, times)
        counter = ledger.counter(bound)
        assert counter.used.tokens + counter.held.tokens <= room
        assert counter.held == sum((s.call.exchange.held for s in streams), Amount())
    for stream in streams:
        held = stream.call.exchange.held
        output = min(await stream.tokens(), held.output_tokens)
        used = Amount(PROMPT + 2 * output, PROMPT + output, PROMPT, output, requests=1)
        ledger.store.apply([Settle(stream.call.exchange.id, used)], NOW)
    counter = ledger.counter(bound)
    assert counter.held.is_zero
    assert counter.used.tokens <= room


@pytest.mark.parametrize("start", [16, 200, 1_024, 31_999])
async def test_a_stream_that_may_hold_all_never_ends(start: int) -> None:
    stream = Stream(call({Unit.TOKENS: PROMPT + PRICE.max_output}, start=start))
    for _ in range(900):
        await stream.hears("text", "so on and on ", 12)
    assert stream.ended is None
    assert await stream.tokens() <= stream.call.exchange.held.output_tokens or (
        stream.call.exchange.held.output_tokens == PRICE.max_output
    )
