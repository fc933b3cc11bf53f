"""Keys and names: who is let in, and which models a name set covers."""

from __future__ import annotations

import fnmatch
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Agent
from llm_proxy.identity.keyring import PREFIX, Credential, Keyring, hash_key, new_key
from llm_proxy.identity.names import NameSet

NOW = 1_800_000_000_000_000
BOT = Agent("bot")


def keyring(*fixed: Credential) -> Keyring:
    return Keyring({"bot": BOT}, fixed)


def issued(**changes: object) -> Credential:
    fields: dict[str, object] = {"key_id": "k", "agent_id": "bot", "sha256": hash_key("lp-1")}
    return Credential(**(fields | changes))  # type: ignore[arg-type]


def test_a_key_finds_its_agent() -> None:
    found = keyring(issued(run_id="run-1")).find("lp-1", NOW)
    assert found is not None
    assert (found.agent, found.key_id, found.run_id) == (BOT, "k", "run-1")


@pytest.mark.parametrize("key", ["", " ", "lp-1 ", "LP-1", "lp-" + "1" * 1_000_000, "ÿþ", "\ud800"[:0]])
def test_any_other_key_finds_nobody(key: str) -> None:
    assert keyring(issued()).find(key, NOW) is None


def test_a_hash_is_no_key() -> None:
    assert keyring(issued()).find(hash_key("lp-1"), NOW) is None


@pytest.mark.parametrize(
    ("credential", "why"),
    [
        (issued(revoked_us=NOW - 1), "was revoked"),
        (issued(expires_us=NOW), "has expired"),
        (issued(agent_id="gone"), "no longer in the configuration"),
    ],
)
def test_a_key_that_is_good_no_more_is_refused_by_name(credential: Credential, why: str) -> None:
    with pytest.raises(ProxyError, match=why) as refused:
        keyring(credential).find("lp-1", NOW)
    assert refused.value.kind is Kind.INVALID_CREDENTIAL
    assert not refused.value.retryable
    assert credential.sha256 not in str(refused.value)
    assert "lp-1" not in str(refused.value)


def test_a_key_lives_until_the_moment_it_expires() -> None:
    assert keyring(issued(expires_us=NOW)).find("lp-1", NOW - 1) is not None


def test_issued_keys_are_remembered_changed_and_forgotten_and_config_keys_stay() -> None:
    ring = keyring(issued(key_id="fixed"))
    ring.remember([issued(key_id=name, sha256=hash_key(f"lp-{name}")) for name in ("a", "b")])
    ring.change("a", None, NOW)
    ring.change("b", NOW + 5, None)
    ring.change("fixed", None, NOW)
    ring.change("nobody", None, NOW)
    with pytest.raises(ProxyError, match="a was revoked"):
        ring.find("lp-a", NOW)
    found = ring.find("lp-b", NOW)
    assert found is not None
    assert (found.key_id, found.expires_us) == ("b", NOW + 5)
    with pytest.raises(ProxyError, match="b has expired"):
        ring.find("lp-b", NOW + 5)
    ring.forget()
    assert ring.find("lp-a", NOW) is None
    kept = ring.find("lp-1", NOW)
    assert kept is not None
    assert (kept.key_id, kept.expires_us) == ("fixed", None)


def test_only_the_keys_shown_last_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.identity.keyring.MOST_REMEMBERED", 2)
    ring = keyring()
    for name in ("a", "b"):
        ring.remember([issued(key_id=name, sha256=hash_key(name))])
    assert ring.find("a", NOW)
    ring.remember([issued(key_id="c", sha256=hash_key("c"))])
    assert [name for name in "abc" if ring.find(name, NOW)] == ["a", "c"]
    ring.change("b", None, NOW)  # nobody's any more


def test_a_new_key_is_long_random_and_prefixed() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(PREFIX) and len(key) >= len(PREFIX) + 43 for key in keys)


def test_the_hash_is_sha256_of_the_utf8() -> None:
    assert hash_key("ü") == hashlib.sha256("ü".encode()).hexdigest()


@pytest.mark.parametrize(
    ("names", "name", "within"),
    [
        ([], "gpt", False),
        (["gpt"], "gpt", True),
        (["gpt"], "gpt-4", False),
        (["claude-*"], "claude-haiku", True),
        (["claude-*"], "xclaude-haiku", False),
        (["*"], "", True),
        (["*"], "a\nb", True),
        (["a*b*c"], "a1b2c", True),
        (["a*b*c"], "a1c", False),
        (["a*a"], "a", False),
        (["ab*ba"], "aba", False),
        (["we[i]rd*"], "we[i]rd-1", True),
        (["weird?"], "weird1", False),
        (["lit*ral"], "lit*ral", True),
    ],
)
def test_names_before_globs(names: list[str], name: str, within: bool) -> None:
    assert (name in NameSet(names)) is within


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_a_glob_means_what_the_shell_means(pattern: str, name: str) -> None:
    assert (name in NameSet([pattern])) is fnmatch.fnmatchcase(name, pattern)


def test_a_long_name_is_answered_at_once() -> None:
    # A search that goes back would not end in a lifetime.
    assert "a" * 100_000 not in NameSet(["*a*a*a*a*a*a*a*b"])


def test_an_empty_set_is_false() -> None:
    assert not NameSet()
    assert NameSet(["x"])
