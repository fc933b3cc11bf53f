"""Clients as people have them, each against upstreams of every dialect."""

import os

import pytest

pytest.register_assert_rewrite("tests.clients.house")
# litellm would fetch its price table when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
