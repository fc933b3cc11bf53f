"""Conversations of one key, however they interleave and however alike they are, are as many runs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.records.prefixes import End
from llm_proxy.stitching import Threads, gone_on_from
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.retelling import Called

WHOSE = ("openai_chat", "", "", "")
ARGUMENTS = ('{"a": 1}', '{"a": 2}')
said = st.sampled_from(["a", "b"])
turns = st.lists(st.tuples(said, st.sampled_from(["x", "y", "call"])), min_size=1, max_size=4)


@dataclass
class Talk:
    """What one agent says and hears; its model replies the same to the same."""

    script: list[tuple[str, str]]
    system: str
    history: list[Any] = field(default_factory=list[Any])

    def messages(self) -> list[Any]:
        front = [{"role": "system", "content": self.system}] if self.system else []
        return [*front, *self.history]


@dataclass
class Store:
    threads: Threads = field(default_factory=lambda: Threads(b"k" * 32))
    ends: list[tuple[bytes, str, str, bytes]] = field(default_factory=list[tuple[bytes, str, str, bytes]])
    newest: dict[str, str] = field(default_factory=dict[str, str])
    calls: int = 0

    def call(self, talk: Talk, reply: str) -> str:
        """One call from its door to its end; its run."""
        self.calls += 1
        id_ = f"{self.calls:04}"
        request = OPENAI_CHAT.parse(json.dumps({"model": "m", "messages": talk.messages()}).encode())
        thread = self.threads.of(OPENAI_CHAT, request, request.messages, WHOSE)
        assert thread is not None
        found = [End(end, call, of, system, self.newest[of]) for end, call, of, system in self.ends]
        end = gone_on_from(thread.ends, found, thread.system)
        run = end.run_id if end else id_
        self.newest[run] = id_
        calls = [Called("call_0", ARGUMENTS[0])] if reply == "call" else []
        told = self.threads.end(OPENAI_CHAT, thread, "" if calls else reply, calls)
        assert told is not None
        self.ends.append((told, id_, run, thread.system))
        return run


def heard(talk: Talk, reply: str) -> None:
    if reply != "call":
        talk.history.append({"role": "assistant", "content": f" {reply}"})
        return
    function = {"name": "f", "arguments": ARGUMENTS[0].replace(" ", "")}
    call = {"id": "call_0", "type": "function", "function": function}
    talk.history.append({"role": "assistant", "content": None, "tool_calls": [call]})


@given(
    st.lists(st.tuples(turns, st.sampled_from(["", "", "s", "t"])), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_each_conversation_is_a_run(scripts: list[tuple[list[tuple[str, str]], str]], random: Any) -> None:
    store, talks = Store(), [Talk(list(script), system) for script, system in scripts]
    runs: dict[str, list[list[Any]]] = defaultdict(list)
    whose: dict[int, set[str]] = defaultdict(set)
    while waiting := [n for n, talk in enumerate(talks) if talk.script]:
        n = random.choice(waiting)
        talk = talks[n]
        text, reply = talk.script.pop(0)
        talk.history.append({"role": "user", "content": text})
        run = store.call(talk, reply)
        runs[run].append(list(talk.messages()))
        whose[n].add(run)
        heard(talk, reply)
        runs[run][-1].append(talk.history[-1])
    assert len(runs) == len(talks)
    for calls in runs.values():
        for before, after in pairwise(calls):
            assert after[: len(before)] == before  # each goes on with the one before
    if len({json.dumps([script, system]) for script, system in scripts}) == len(talks) == 1:
        assert all(len(of) == 1 for of in whose.values())


@given(st.lists(said, min_size=1, max_size=6), st.integers(1, 6), said)
def test_an_edited_history_branches_off(texts: list[str], at: int, other: str) -> None:
    store, talk = Store(), Talk([], "")
    run = ""
    for text in texts:
        talk.history.append({"role": "user", "content": text})
        assert run in ("", store.call(talk, "x"))
        run = run or "0001"
        heard(talk, "x")
    place = 2 * (min(at, len(texts)) - 1)
    talk.history[place] = {"role": "user", "content": f"{other}{other}"}
    talk.history.append({"role": "user", "content": "and?"})
    branches = store.call(talk, "x")
    assert (branches == run) == (place > 0)  # with nothing left of what was replied to, it's another run
