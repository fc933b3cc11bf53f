"""Which of a caller's headers and queries go upstream, and in which form."""

from __future__ import annotations

import pytest

from llm_proxy.errors import ProxyError
from llm_proxy.http.model_api import checked_query, passed_on

BETAS = frozenset({b"anthropic-beta", b"anthropic-version"})


def test_a_header_that_stands_twice_goes_on_as_a_list() -> None:
    sent = [
        (b"anthropic-beta", b"one-2025-01-01"),
        (b"x-api-key", b"secret"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"two-2025-02-02,three"),
    ]
    assert passed_on(sent, BETAS) == {
        "anthropic-beta": "one-2025-01-01, two-2025-02-02,three",
        "anthropic-version": "2023-06-01",
    }


def test_a_header_that_does_not_print_stays_here() -> None:
    assert passed_on([(b"anthropic-beta", b"a\x01b")], BETAS) == {}


def test_a_plain_query_goes_on() -> None:
    assert checked_query(b"") == ""
    assert checked_query(b"beta=true&include%5B%5D=x") == "beta=true&include%5B%5D=x"


@pytest.mark.parametrize("query", [b"a b", b"a#b", b"\xff=1", b'a="b"', b"x" * 2_049, b"a=\r\nb"])
def test_a_query_that_servers_may_read_differently_is_refused(query: bytes) -> None:
    with pytest.raises(ProxyError, match="percent-encoded"):
        checked_query(query)
