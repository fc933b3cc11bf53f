"""Clients as people have them, each against upstreams of every dialect."""

import pytest

pytest.register_assert_rewrite("tests.clients.house")
