"""The shares of the targets of a model, as LiteLLM's simple shuffle takes them."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.config.choices import StrategyName
from llm_proxy.importing.deployments import Deployment
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field

LEAST = 0.001
"""Written where LiteLLM would send nothing: a share here is over 0."""
_MOST = 1e6


def weights(
    deployments: Sequence[Deployment], strategy: StrategyName | None, label: str, notes: Notes
) -> tuple[float | None, ...]:
    """By `weight`, else by `rpm`, else by `tpm`; None where every target has the same share.

    Speaks of every `weight`.
    """
    fields = [deployment.param("weight") for deployment in deployments]
    counts = strategy is StrategyName.WEIGHTED
    for n, field in enumerate(fields):
        if field is not None:
            _tell(field, f"{label}.targets[{n}].weight" if counts else "", notes)
    if not counts:
        return (None,) * len(deployments)
    for key in ("weight", "rpm", "tpm"):
        found = [_share(deployment.param(key)) for deployment in deployments]
        if any(found):
            return _ratios(found) if key != "weight" else tuple(min(share, _MOST) or LEAST for share in found)
    return (None,) * len(deployments)


def _share(field: Field | None) -> float:
    number = field.number if field is not None else None
    return min(number, _MOST**2) if number is not None and number > 0 else 0


def _ratios(shares: Sequence[float]) -> tuple[float | None, ...]:
    """To the smallest, which is 1; none at all where they are the same."""
    least = min(share for share in shares if share)
    if all(share == least for share in shares):
        return (None,) * len(shares)
    return tuple(min(round(share / least, 3), _MOST) if share else LEAST for share in shares)


def _tell(field: Field, became: str, notes: Notes) -> None:
    number = field.number
    if number is None or number < 0:
        notes.unsupported(field, "is no number from 0 on")
    elif not became:
        notes.exact(field, note="has no effect, as there: the strategy goes by something else")
    elif number == 0:
        notes.approximate(field, became, f"a share is over 0: {LEAST} is written")
    elif number > _MOST:
        notes.approximate(field, became, f"{_MOST:.0f} is the most")
    else:
        notes.exact(field, became)
