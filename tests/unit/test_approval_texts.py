"""What people read of an approval: arguments that hide nothing. What events tell, and who may approve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.admin.arguments import caution, readable, said, visible
from llm_proxy.config import ConfigErrors, load_config
from llm_proxy.config.approvers import may_approve, who_may_approve
from llm_proxy.config.schema import OperatorConfig
from llm_proxy.reactions.approvals import MOST_ARGUMENTS, told

HEAD = (
    "policy: proxy.yaml\nmodels: {m: {targets: [{id: m, provider: openai, base_url: 'http://u/v1'}]}}\n"
    "operators: [{id: dana, roles: [approver]}, {id: sue, roles: [spend-reader]}]\n"
)
HOOK = "id: w, url: 'https://hooks.example.com', secret: long-enough-a-secret"
PUBLIC = "server: {public_url: 'https://llm.example.com'}\n"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_what_is_read_means_what_is_run_and_hides_nothing(value: object, escaped: bool) -> None:
    text = json.dumps({"x": value}, ensure_ascii=escaped)
    shown = readable(text)
    assert json.loads(shown) == json.loads(text)
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (r'{"to":"eve\u0040evil.example"}', '"to": "eve@evil.example"'),
        (r'{"path":"C:\\u0041"}', r'"path": "C:\\u0041"'),
        (r'{"q":"\u0022, \u005c"}', r'"q": "\u0022, \u005c"'),
        (r'{"rtl":"\u202egpj.exe"}', r'"rtl": "\u202egpj.exe"'),
        ('{"zero":"a\u200bb\u3164c\ufe0f"}', r'"zero": "a\u200bb\u3164c\ufe0f"'),
        (r'{"smile":"\ud83d\ude00"}', '"smile": "\U0001f600"'),
        (r'{"tag":"\udb40\udc41"}', r'"tag": "\udb40\udc41"'),
        ('{"amount": 120.50, "n": 1e3, "big": 12345678901234567890}', '"amount": 120.50'),
        ("not json \x1b[2J", r"not json \u001b[2J"),
    ],
)
def test_escapes_are_undone_where_they_hide_and_made_where_nothing_is_seen(raw: str, shown: str) -> None:
    assert shown in readable(raw)


def test_a_look_alike_is_pointed_out() -> None:
    assert "beyond ASCII" in caution('{"to": "eve@ex\u0430mple.com"}')
    assert "beyond ASCII" in caution(r'{"to": "eve@ex\u0430mple.com"}')
    assert caution(r'{"to": "a\u202eb"}') == ""
    assert visible("a\x00b\nc\U000e0041") == "a\\u0000b\nc\\udb40\\udc41"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("def f():\n\treturn 1\r\n", "def f():\n\treturn 1\r\n"),
        ("Oui\xa0!", "Oui\xa0!"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),
        ("pay\ufe0f \u2764\ufe0f\ufe0f", "pay\\ufe0f \u2764\ufe0f\\ufe0f"),
        ("a\rb\r", "a\\u000db\\u000d"),
        ("\u202egpj.exe\u200b\x1b", "\\u202egpj.exe\\u200b\\u001b"),
        ("", ""),
    ],
)
def test_what_is_said_keeps_what_prose_and_code_are_full_of(text: str, shown: str) -> None:
    assert said(text) == shown


def test_arguments_hide_no_tab() -> None:
    assert readable("not json\t\xa0") == "not json\\u0009\\u00a0"


def test_arguments_leave_only_where_they_are_wanted_and_cut() -> None:
    data = {"id": "apr_1", "arguments": '{"text": "' + "é" * 5_000 + '"}'}
    bare = told(data, content=False)
    assert bare == {"id": "apr_1", "command": "llm-proxy approvals show apr_1"}
    full = told(data, content=True)
    kept = str(full["arguments"])
    assert data["arguments"].startswith(kept)
    assert MOST_ARGUMENTS - 1 <= len(kept.encode()) <= MOST_ARGUMENTS
    assert full["arguments_cut"] is True
    assert told({"id": "a", "arguments": "{}"}, content=True)["arguments_cut"] is False


@pytest.mark.parametrize(
    ("approvers", "who"),
    [
        (["group:leads"], ("dana", "erin")),
        (["frank"], ("frank",)),
        (["leads"], ()),
        (["group:dana"], ()),
        (["ivan", "sue"], ()),
        (["group:leads", "dana", "frank"], ("dana", "erin", "frank")),
        ([], ()),
    ],
)
def test_who_may_approve_is_named_and_has_the_role(approvers: list[str], who: tuple[str, ...]) -> None:
    people = [
        OperatorConfig.model_validate({"id": id_, "roles": [role], "groups": groups})
        for id_, role, groups in (
            ("dana", "approver", ["leads"]),
            ("erin", "admin", ["leads"]),
            ("frank", "approver", []),
            ("ivan", "investigator", ["leads"]),
            ("sue", "spend-reader", []),
        )
    ]
    assert who_may_approve(people, approvers) == who
    assert [person.id for person in people if may_approve(person, approvers)] == list(who)


def loaded(folder: Path, text: str) -> list[tuple[str, str]]:
    """The errors of a config, else its warnings."""
    path = folder / "proxy.yaml"
    path.write_text(HEAD + text, "utf-8")
    try:
        found = load_config(path, {}).warnings
    except ConfigErrors as errors:
        found = errors.issues
    return [(issue.key, issue.message) for issue in found]


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (
            f"{PUBLIC}webhooks: [{{{HOOK}, links_for: [dona]}}]",
            "webhooks[0].links_for[0]",
            "did you mean 'dana'",
        ),
        (f"webhooks: [{{{HOOK}, links_for: [dana]}}]", "webhooks[0].links_for", "needs server.public_url"),
        (f"{PUBLIC}webhooks: [{{{HOOK}, links_for: [sue]}}]", "webhooks[0].links_for[0]", "neither role"),
        (
            f"{PUBLIC}webhooks: [{{{HOOK}, links_for: [dana], events: [run.ended]}}]",
            "webhooks[0].links_for",
            "carries no link",
        ),
        ("server: {public_url: 'http://llm.example.com'}", "server.public_url", "must be https://"),
        ("server: {public_url: 'https://llm.example.com/?x'}", "server.public_url", "must hold no ?query"),
        ("server: {public_url: 'https://u:p@llm.example.com'}", "server.public_url", "no user or password"),
    ],
)
def test_links_that_can_not_work_are_told_at_load(tmp_path: Path, text: str, key: str, said: str) -> None:
    [(found, message)] = loaded(tmp_path, text)
    assert (found, said in message) == (key, True), message


@pytest.mark.parametrize(
    "url", ["https://llm.example.com/proxy", "http://127.0.0.1:4000", "http://[::1]:4000"]
)
def test_links_that_work_are_not_told_of(tmp_path: Path, url: str) -> None:
    assert (
        loaded(tmp_path, f"server: {{public_url: '{url}'}}\nwebhooks: [{{{HOOK}, links_for: [dana]}}]") == []
    )


def test_nobody_is_called_as_the_admin_token_is(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("operators: [{id: admin_token, roles: [approver]}]", "utf-8")
    with pytest.raises(ConfigErrors, match="name the person"):
        load_config(path, {})
