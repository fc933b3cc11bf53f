"""When a delivery that failed is tried again: ever later, for about a day."""

from __future__ import annotations

DELAYS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 21_600, 36_000)
"""After the first try, the second, and so on: eleven tries over 23.7 hours."""
_JITTER = 0.1
_LONGEST_ASKED_S = 3_600.0
_LONGEST_REST_S = 60.0


def next_try_us(
    attempts: int,
    now_us: int,
    random: float,
    asked_s: float | None = None,
    delays: tuple[float, ...] = DELAYS_S,
) -> int | None:
    """When to try again after `attempts` failed tries; None where it is given up.

    `random`, from 0 to 1, moves it by up to a tenth either way. `asked_s` is what the endpoint's Retry-After
    says: it is waited out, up to an hour.
    """
    if attempts > len(delays):
        return None
    wait = delays[attempts - 1] * (1 - _JITTER + 2 * _JITTER * random)
    return now_us + int(max(wait, min(asked_s or 0.0, _LONGEST_ASKED_S)) * 1_000_000)


def rest_s(failures: int) -> float:
    """How long an endpoint is left alone after so many failures in a row: a dead one isn't hammered."""
    return 0.0 if failures < 1 else min(_LONGEST_REST_S, 0.5 * 2.0 ** min(failures - 1, 10))
