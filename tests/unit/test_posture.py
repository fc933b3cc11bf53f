"""Each question of `posture`: yes for a sound deployment, and else no or partly, for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.posture.answers import Verdict
from llm_proxy.posture.facts import Cut, Facts, KeyFile, Signed, ToolCalls, Users
from llm_proxy.posture.questions import QUESTIONS, posture
from tests.unit.posture_house import NOW_US, REBUILT, RECORDS, answers_to, bot, facts_of


def test_a_sound_deployment_is_ready(tmp_path: Path) -> None:
    found = posture(facts_of(tmp_path))
    lacking = [(answer.id, answer.missing) for answer in found.answers if answer.missing]
    assert lacking == []
    assert found.ready
    assert [answer.id for answer in found.answers if answer.verdict is Verdict.NOT_APPLICABLE] == ["exposure"]
    assert len({answer.id for answer in found.answers}) == len(QUESTIONS) == 16


def _with(**more: Any) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, records=replace(RECORDS, **more))


def _tools(**more: Any) -> Callable[[Facts], Facts]:
    return _with(tools=replace(RECORDS.tools, **more))


FIGURES: dict[str, tuple[str, Verdict, str, Callable[[Facts], Facts]]] = {
    "inputs": ("logging", Verdict.PARTLY, "inputs: 9 of 10 (90%)", _tools(digests=9)),
    "kept": ("logging", Verdict.PARTLY, "arguments of 4 of 10 (40%)", _tools(inputs=4)),
    "policies": ("logging", Verdict.PARTLY, "policy: 1 of 10 (10%)", _tools(judged=1)),
    "judged": ("judgement", Verdict.PARTLY, "1 of 10 (10%) recorded verdicts", _tools(judged=1)),
    "outputs": ("logging", Verdict.PARTLY, "outputs: 7 of 8 (87%)", _tools(results=7)),
    "effects": ("logging", Verdict.PARTLY, "side effects: reported for 1 of 3", _tools(effects=1)),
    "nothing": ("logging", Verdict.NOT_APPLICABLE, "", _with(tools=ToolCalls())),
    "users": (
        "permissions",
        Verdict.PARTLY,
        "named the user in 1 of 2",
        _with(users=Users(runs=2, verified=1)),
    ),
    "unmeasured": ("authority", Verdict.NO, "not measured", _with(cut=None)),
    "slow": (
        "authority",
        Verdict.NO,
        "7.00 s",
        _with(cut=replace(RECORDS.cut or Cut(agent_id="", at_us=0, streams=0, seconds=0), seconds=7.0)),
    ),
    "unsigned": ("proof", Verdict.PARTLY, "no checkpoint was ever signed", _with(signed=Signed(records=9))),
    "late": (
        "proof",
        Verdict.PARTLY,
        "4 records since",
        _with(signed=replace(RECORDS.signed, newest_us=NOW_US - 7_200_000_000)),
    ),
    "lag": (
        "export",
        Verdict.PARTLY,
        "the oldest for 900 s",
        _with(unsent=8, oldest_unsent_us=NOW_US - 900_000_000),
    ),
    "refused": ("export", Verdict.PARTLY, "3 spans were refused", _with(dead_letters=3)),
    "not rebuilt": (
        "reconstruction",
        Verdict.NO,
        "call c: its reply is no longer kept",
        lambda facts: replace(
            facts, rebuilt=replace(REBUILT, problems=("call c: its reply is no longer kept",))
        ),
    ),
    "nothing to rebuild": (
        "reconstruction",
        Verdict.NOT_APPLICABLE,
        "",
        lambda facts: replace(facts, rebuilt=None),
    ),
    "store": (
        "durability",
        Verdict.NO,
        "can't be used: it is away",
        lambda facts: replace(facts, store_problem="it is away"),
    ),
    "open key": (
        "proof",
        Verdict.PARTLY,
        "can be read by others",
        lambda facts: replace(facts, key_file=KeyFile(path="k.pem", exists=True, open_to_others=True)),
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_amiss_in_the_records_is_named(tmp_path: Path, name: str) -> None:
    id_, verdict, said, change = FIGURES[name]
    answer = answers_to(change(facts_of(tmp_path)))[id_]
    assert answer.verdict is verdict, answer
    assert any(said in text for text in answer.missing) == bool(said), answer


def test_no_secret_stands_in_the_report(tmp_path: Path) -> None:
    def careless(config: dict[str, Any], policy: dict[str, Any]) -> None:
        bot(config, keys=["sk-bot-0123456789abcdef"])
        config["server"]["admin_token"] = "hunter2"

    facts = facts_of(tmp_path, careless)
    assert facts.plain == ("server.admin_token", "agents.desk-bot.keys[0]")
    said = str(posture(facts))
    assert "0123456789abcdef" not in said
    assert "hunter2" not in said
