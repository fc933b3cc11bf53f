"""These groups need what `make test` doesn't install: they run only where `-m` names them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GROUPS = ("phoenix", "collector")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out each test here whose group `-m` doesn't name."""
    asked = re.findall(r"\w+", config.option.markexpr or "")
    left_out = [
        item
        for item in items
        if HERE in item.path.parents and not any(item.get_closest_marker(g) and g in asked for g in GROUPS)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
