"""Destinations are compared as parsed values; what can't be parsed does not hold."""

from __future__ import annotations

import pytest

from llm_proxy.policy.destinations import compile_check, compile_scope_check
from llm_proxy.policy.identity import folded, proven
from llm_proxy.policy.schema import Destination

MAIL = compile_check(Destination(email_domains=("example.com", "*.corp.example.com", "bücher.de")))
WEB = compile_check(
    Destination(schemes=("https",), hosts=("api.example.com", "*.kb.example.com", "10.0.0.1:8443"))
)
FILES = compile_check(Destination(path_prefixes=("/srv/data/", "docs")))
API = compile_check(Destination(hosts=("api.example.com",), path_prefixes=("/v1",)))


@pytest.mark.parametrize(
    "value",
    [
        "a@example.com",
        "A@EXAMPLE.COM.",
        "a@x.corp.example.com",
        "Bob <a@example.com>",
        '"Doe" <a@example.com>',
        "a@example.com, b@example.com; c@example.com",
        ["a@example.com", "b@example.com"],
        "a@bücher.de",
        "a@xn--bcher-kva.de",
    ],
)
def test_mail_that_holds(value: object) -> None:
    assert MAIL(value, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "a@sub.example.com",
        "a@corp.example.com",
        "a@evilexample.com",
        "a@example.com.evil.com",
        "a@ex\u0430mple.com",
        "a@example\u3002com",
        "a@\uff45xample.com",
        '"a@example.com" <e@evil.com>',
        "a@evil.com <b@example.com>",
        "a@example.com <e@evil.com>",
        "a@example.com, e@evil.com",
        "e@evil.com;a@example.com",
        "a@example.com,",
        "a@example.com\nBcc: e@evil.com",
        "a@example.com\r\n",
        "a@example.com\x00@evil.com",
        "u%evil.com@example.com",
        "evil.com!u@example.com",
        "a@b@example.com",
        '"a b"@example.com',
        "a@[1.2.3.4]",
        "(x) a@example.com",
        "mailto:a@example.com",
        "@evil.com:a@example.com",
        "example.com",
        "",
        [],
        ["a@example.com", "e@evil.com"],
        ["a@example.com", None],
        [["a@example.com"]],
        {"address": "a@example.com"},
        None,
        5,
    ],
)
def test_mail_that_does_not(value: object) -> None:
    assert not MAIL(value, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "https://api.example.com",
        "https://api.example.com/x?y=https://evil.com#z",
        "HTTPS://API.example.com.:443/x",
        "https://a.kb.example.com",
        "https://a.b.kb.example.com/",
        "https://10.0.0.1:8443/x",
    ],
)
def test_urls_that_hold(value: str) -> None:
    assert WEB(value, {})


@pytest.mark.parametrize(
    "value",
    [
        "http://api.example.com",
        "https://api.example.com:8443/",
        "https://10.0.0.1/",
        "https://kb.example.com",
        "https://evilkb.example.com",
        "https://api.example.com@evil.com",
        "https://api.example.com:443@evil.com",
        "https://user@api.example.com",
        "https://evil.com#@api.example.com",
        "https://evil.com?@api.example.com",
        "https://evil.com\\@api.example.com",
        "https:\\\\api.example.com",
        "https://api.example.com%2eevil.com",
        "https://api%2eexample.com",
        "https:api.example.com",
        "https:/api.example.com",
        "https:///api.example.com",
        "//api.example.com",
        "api.example.com",
        " https://api.example.com",
        "https://api.example.com /",
        "https://api.example.com\t/",
        "https://api.example.com\u200b/",
        "https://api.example.com;x@evil.com/",
        "https://api\u3002example.com",
        "https://167772161:8443/",
        "https://0xa.0.0.1:8443",
        "https://010.0.0.1:8443/",
        "https://10.1:8443/",
        "https://[::ffff:10.0.0.1]:8443/",
        "https://api.example.com:99999/",
        "https://api.example.com:/",
        "javascript:alert(1)",
        "",
    ],
)
def test_urls_that_do_not(value: str) -> None:
    assert not WEB(value, {})


@pytest.mark.parametrize(
    "value", ["/srv/data", "/srv//data/x", "/srv/data/../data/a%20b", "docs/a", "./docs", "/srv/data/100%"]
)
def test_paths_that_hold(value: str) -> None:
    assert FILES(value, {})


@pytest.mark.parametrize(
    "value",
    [
        "/srv/database",
        "/srv/data/../x",
        "/srv/data/%2e%2e/x",
        "/srv/data/%2E./x",
        "/srv/data/%252e%252e/x",
        "/srv/data/..%2fx",
        "/srv/data/" + "%25" * 1 + "252e%25252e/x",
        "/srv/data/\uff0e\uff0e/x",
        "/srv/data\\..\\x",
        "/srv/data/%5c..%5cx",
        "/srv/data/%00",
        "/srv/data/%ff",
        "/docs",
        "docs/../../etc",
        "../docs",
        "~/docs",
        "",
    ],
)
def test_paths_that_do_not(value: str) -> None:
    assert not FILES(value, {})


def test_url_paths_are_below_the_prefix() -> None:
    assert API("https://api.example.com/v1/users?x=/../..", {})
    assert not API("https://api.example.com/v1/../admin", {})
    assert not API("https://api.example.com/v1%2f..%2fadmin", {})
    assert not API("https://api.example.com/", {})


def test_scopes_are_literal_and_the_agents_own() -> None:
    check = compile_scope_check("repos")
    scopes = {"repos": ("acme/web", "42")}
    assert check("acme/web", scopes)
    assert check(42, scopes)
    assert check(["acme/web", "42"], scopes)
    assert not check("acme/web/../api", scopes)
    assert not check("ACME/web", scopes)
    assert not check(["acme/web", "acme/api"], scopes)
    assert not check([], scopes)
    assert not check(None, scopes)
    assert not check(True, {"repos": ("True",)})
    assert not check("acme/web", {"projects": ("acme/web",)})


@pytest.mark.parametrize(
    "destination",
    [
        Destination(email_domains=("exa mple.com",)),
        Destination(email_domains=("@example.com",)),
        Destination(hosts=("https://api.example.com",)),
        Destination(hosts=("*",)),
        Destination(hosts=("api.*.com",)),
        Destination(path_prefixes=("../x",)),
        Destination(path_prefixes=("",)),
    ],
)
def test_destinations_that_mean_nothing_are_refused(destination: Destination) -> None:
    with pytest.raises(ValueError):
        compile_check(destination)


SAID = folded("Please refund order 17 to Bob@Example.com, and cc ＡＮＮ or x_1.")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bob@example.com", True),
        ("BOB@EXAMPLE.COM", True),
        ("ob@example.com", False),
        ("bob@example.co", False),
        ("eve@example.com", False),
        (17, True),
        (7, False),
        ("ann", True),
        (["bob@example.com", 17], True),
        (["bob@example.com", "eve@example.com"], False),
        ([], True),
        (None, True),
        ("", True),
        (" ", False),
        (True, False),
        ({"to": "bob@example.com"}, False),
        ("bob@example.com" * 100, False),
    ],
)
def test_identity_is_what_the_user_wrote(value: object, expected: bool) -> None:
    assert proven(["to"], {"to": value}, SAID) is expected  # type: ignore[dict-item]
    assert proven(["to", "cc"], {"cc": value}, SAID) is expected  # type: ignore[dict-item]
