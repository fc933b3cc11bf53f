"""Anthropic Messages, what a Claude model takes of a request, told from its name.

From the vendor's migration guides: extended thinking came with 3.7, structured outputs with Opus 4.1 and the
4.5 family, adaptive thinking with 4.6 (4.7 refuses budgets and sampling parameters), and from 5 on a model
thinks unless told otherwise; Fable, Mythos and the 5.5 family but for Haiku can't be told otherwise.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:[-._](\d{1,2})(?!\d))?(?!\d)")
"""Major and minor in any spelling: claude-3-7-sonnet-20250219, claude-opus-4-6, claude-4.7-opus."""

_NEWEST = (99, 0)
"""Stands for a Claude without a number in its name (`claude-mythos-preview`): a new one, as far as told."""


class Reasons(Enum):
    """How a model is asked to think."""

    NEVER = auto()
    BY_BUDGET = auto()
    ADAPTIVELY = auto()


class Takes(msgspec.Struct, frozen=True, kw_only=True):
    """What one model takes. The defaults are for names that are no Claude's: compatible servers."""

    reasons: Reasons = Reasons.BY_BUDGET
    unasked: bool = False
    """It thinks where nothing is said of thinking."""
    always: bool = False
    """It can't be told not to think."""
    extra_high: bool = False
    """It knows the effort `xhigh`."""
    schemas: bool = True
    """It takes `output_config.format` and strict tools."""
    sampling: bool = True
    """It takes temperature, top_p and top_k."""
    one_sampler: bool = False
    """It refuses temperature beside top_p."""


def takes(model: str) -> Takes:
    name = model.lower()
    if "claude" not in name:
        return Takes()
    version = _version(name)
    lasting = "fable" in name or "mythos" in name or (version >= (5, 5) and "haiku" not in name)
    if version < (3, 7):
        reasons = Reasons.NEVER
    else:
        reasons = Reasons.BY_BUDGET if version < (4, 6) else Reasons.ADAPTIVELY
    return Takes(
        reasons=reasons,
        unasked=version >= (5, 0),
        always=lasting,
        extra_high=version >= (4, 7),
        schemas=version >= (4, 1),
        sampling=version < (4, 7),
        one_sampler=version >= (4, 1),
    )


def _version(name: str) -> tuple[int, int]:
    match = _VERSION.search(name)
    if match is None:
        return (2, 0) if "instant" in name else _NEWEST
    return int(match[1]), int(match[2] or 0)
